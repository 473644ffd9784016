-- wrk's script: one signup after the other, each of another person. PAUSE_MS and TAG come from the environment.
local tag = os.getenv("TAG") or "x"
local pause = tonumber(os.getenv("PAUSE_MS") or "0")
local token = os.getenv("TOKEN")
local thread_count = 0

function setup(thread)
  thread:set("number", thread_count)
  thread_count = thread_count + 1
end

function init(args)
  count = 0
  math.randomseed(number + 1)
  headers = { ["Content-Type"] = "application/json" }
  if token then headers["Authorization"] = "Bearer " .. token end
end

function delay()
  return pause > 0 and math.random(0, 2 * pause) or 0
end

function request()
  count = count + 1
  local email = string.format("delivered+%s-%d-%d@resend.dev", tag, number, count)
  local body = string.format('{"email":"%s","first_name":"Ada","business_name":"Bench","consent":true,'
    .. '"assessment_score":52,"red_systems":1,"orange_systems":2,"yellow_systems":1,"green_systems":4,'
    .. '"weakest_system_1":"GPS","weakest_system_2":"FUEL","strongest_system":"CREW","revenue_leak_total":14700}', email)
  return wrk.format("POST", nil, headers, body)
end

function done(summary, latency, requests)
  io.write(string.format(
    '\nRESULT {"seconds": %f, "requests": %d, "refused": %d, "lost": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.duration / 1e6, summary.requests, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
