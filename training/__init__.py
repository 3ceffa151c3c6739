"""The offline trainer: a folder of labelled images in, a published version directory out."""
