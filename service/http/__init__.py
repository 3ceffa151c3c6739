"""The HTTP front: Flask on gunicorn's gevent worker. Translates; the classifier does the work."""
