# frozen_string_literal: true

# Sidekiq as `make bench-peers` runs it, with the fetch that comes with it. The protocol is in bench/peers.py.
require "json"
require "sidekiq"
require "sidekiq/cli"
require "sidekiq/launcher"

# Jobs in a bulk call: the same for every peer. Callers at once: its clients are threads, and more are slower.
BULK = 1000
CALLERS = 10
REPORT_S = 0.05

PAYLOAD = JSON.parse(ENV.fetch("PEER_PAYLOAD"))
LOCK = Mutex.new
STARTED = ConditionVariable.new
$executed = 0
$first = 0
$last = 0

Sidekiq.logger = Sidekiq::Logger.new($stderr, level: Logger::WARN)

# Microseconds since 1970: comparable between the processes of a machine.
def now = Process.clock_gettime(Process::CLOCK_REALTIME, :microsecond)

def say(line)
  $stdout.write("#{JSON.generate(line)}\n")
  $stdout.flush
end

def ready
  say(ready: "Sidekiq #{Sidekiq::VERSION}, Ruby #{RUBY_VERSION}")
  $stdin.gets
end

class Work
  include Sidekiq::Worker
  sidekiq_options queue: "bench", retry: true

  def perform(_payload)
    at = now
    LOCK.synchronize do
      $first = at if $executed.zero?
      $last = at if at > $last
      $executed += 1
      STARTED.signal
    end
  end
end

def report(ended)
  executed, first, last = LOCK.synchronize { [$executed, $first, $last] }
  say(executed: executed, first: first, last: last, ended: ended)
  executed
end

def launcher(slots)
  Sidekiq.options.merge!(concurrency: slots, queues: ["bench"])
  # As its command line does: a connection for each thread, and five for the rest.
  Sidekiq.redis = { url: ENV.fetch("PEER_REDIS_URL"), size: slots + 5 }
  Sidekiq::Launcher.new(Sidekiq.options)
end

def enqueue(how, count)
  begun = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  case how
  when "one"
    count.times { Work.perform_async(PAYLOAD) }
  when "concurrent"
    share, rest = count.divmod(CALLERS)
    Array.new(CALLERS) { |at| Thread.new { (share + (at < rest ? 1 : 0)).times { Work.perform_async(PAYLOAD) } } }
      .each(&:join)
  when "bulk"
    (0...count).each_slice(BULK) { |chunk| Sidekiq::Client.push_bulk("class" => Work, "args" => chunk.map { [PAYLOAD] }) }
  else
    abort("enqueue #{how}: one, concurrent or bulk")
  end
  say(jobs: count, seconds: Process.clock_gettime(Process::CLOCK_MONOTONIC) - begun)
end

def drain(slots)
  launcher = launcher(slots)
  ready
  launcher.run
  stop = Thread.new { $stdin.gets }
  reported = 0
  until stop.join(REPORT_S)
    reported = report(false) if $executed > reported
  end
  launcher.stop
  report(true)
end

def latency(samples)
  launcher = launcher(10)
  ready
  launcher.run
  warm_up = samples / 10
  micros = (0...samples + warm_up).map do |at|
    # Uneven, so that no poll falls into step.
    sleep(0.005 + (at * 7919 % 10_000) / 1e6)
    before = $executed
    begun = now
    Work.perform_async(PAYLOAD)
    LOCK.synchronize { STARTED.wait(LOCK) while $executed == before }
    $last - begun
  end
  launcher.stop
  say(us: micros.drop(warm_up))
end

Sidekiq.redis = { url: ENV.fetch("PEER_REDIS_URL"), size: CALLERS + 5 }
case ARGV
in ["enqueue", how, count]
  Integer(ENV.fetch("PEER_WARM_UP")).times { Work.perform_async(PAYLOAD) }
  ready
  enqueue(how, Integer(count))
in ["drain", slots] then drain(Integer(slots))
in ["latency", samples] then latency(Integer(samples))
in ["kept"] then say(kept: nil) # Only a counter is left of a finished job.
else abort("usage: enqueue one|concurrent JOBS, drain SLOTS, latency SAMPLES, or kept")
end
