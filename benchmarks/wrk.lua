-- Sends whole HTTP requests, made beforehand, in turn: files 0.http, 1.http, ... in $BENCH_REQUESTS.
-- Writes the outcome as JSON to $BENCH_OUT.
local requests, count, at = {}, 0, 0

function init()
  while true do
    local file = io.open(string.format("%s/%d.http", os.getenv("BENCH_REQUESTS"), count), "rb")
    if not file then break end
    count = count + 1
    requests[count] = file:read("*a")
    file:close()
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  local file = io.open(os.getenv("BENCH_OUT"), "w")
  file:write(string.format('{"requests": %d, "seconds": %f, "errors": %d, "p50_ms": %f, "p99_ms": %f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
  file:close()
end
