-- Sends the bodies of a file, one a line, in turn, each time under another transaction id: in the place of @ID@ stands a number.
-- With PAUSE, waits about so many milliseconds before each request.
local bodies, at, sent = {}, 0, 0
local run = os.getenv("RUN") .. "-"
local pause = tonumber(os.getenv("PAUSE") or "0")

function init(arguments)
  for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. os.getenv("TOKEN")
end

function request()
  at = at % #bodies + 1
  sent = sent + 1
  return wrk.format(nil, nil, nil, (bodies[at]:gsub("@ID@", run .. sent, 1)))
end

if pause > 0 then
  function delay() return math.floor(-pause * math.log(1 - math.random())) end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('RESULT {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
