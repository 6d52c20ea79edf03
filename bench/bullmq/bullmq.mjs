// BullMQ as `make bench-peers` runs it: finished jobs are kept, which is its default. The protocol is in bench/peers.py.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Queue, Worker } from 'bullmq';

// Jobs in a bulk call, and callers at once: the same for every peer.
const BULK = 1000;
const CALLERS = 64;
const REPORT_MS = 50;

const [command, ...words] = process.argv.slice(2);
const payload = JSON.parse(process.env.PEER_PAYLOAD);
const redis = new URL(process.env.PEER_REDIS_URL);
const connection = { host: redis.hostname, port: Number(redis.port), maxRetriesPerRequest: null };

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const version = (name) =>
  JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url))).version;
// Microseconds since 1970, monotonic: comparable between the processes of a machine.
const now = () => Math.round((performance.timeOrigin + performance.now()) * 1000);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const lines = createInterface({ input: process.stdin });
const heard = [];
const waiting = [];
lines.on('line', () => (waiting.length ? waiting.shift()() : heard.push(1)));
lines.on('close', () => waiting.forEach((resolve) => resolve()));
const hear = () => new Promise((resolve) => (heard.pop() ? resolve() : waiting.push(resolve)));
const ready = () => {
  say({ ready: `BullMQ ${version('bullmq')}, ioredis ${version('ioredis')}, Node.js ${process.versions.node}` });
  return hear();
};

let executed = 0;
let first = 0;
let last = 0;
let started = () => {};
async function work() {
  last = now();
  first ||= last;
  executed += 1;
  started();
}

async function enqueue(queue, how, count) {
  const begun = performance.now();
  if (how === 'one') {
    for (let i = 0; i < count; i++) await queue.add('job', payload);
  } else if (how === 'concurrent') {
    let taken = 0;
    const caller = async () => {
      while (taken++ < count) await queue.add('job', payload);
    };
    await Promise.all(Array.from({ length: CALLERS }, caller));
  } else if (how === 'bulk') {
    for (let begin = 0; begin < count; begin += BULK) {
      const length = Math.min(BULK, count - begin);
      await queue.addBulk(Array.from({ length }, () => ({ name: 'job', data: payload })));
    }
  } else throw new Error(`enqueue ${how}: one, concurrent or bulk`);
  say({ jobs: count, seconds: (performance.now() - begun) / 1000 });
}

async function drain(slots) {
  const worker = new Worker('bench', work, { connection, concurrency: slots, autorun: false });
  await worker.waitUntilReady();
  await ready();
  worker.run();
  let reported = 0;
  const timer = setInterval(() => {
    if (executed > reported) say({ executed, first, last, ended: false });
    reported = executed;
  }, REPORT_MS);
  await hear();
  clearInterval(timer);
  await worker.close();
  say({ executed, first, last, ended: true });
}

async function latency(queue, samples) {
  const worker = new Worker('bench', work, { connection });
  await worker.waitUntilReady();
  await ready();
  const warmUp = Math.floor(samples / 10);
  const micros = [];
  for (let at = 0; at < samples + warmUp; at++) {
    // Uneven, so that no poll falls into step.
    await sleep(5 + ((at * 7919) % 10000) / 1000);
    const handler = new Promise((resolve) => (started = resolve));
    const begun = now();
    await Promise.all([handler, queue.add('job', payload)]);
    micros.push(last - begun);
  }
  await worker.close();
  say({ us: micros.slice(warmUp) });
}

if (command === 'drain') {
  await drain(Number(words[0]));
} else {
  const queue = new Queue('bench', { connection });
  await queue.waitUntilReady();
  if (command === 'enqueue') {
    for (let i = 0; i < Number(process.env.PEER_WARM_UP); i++) await queue.add('job', payload);
    await ready();
    await enqueue(queue, words[0], Number(words[1]));
  } else if (command === 'latency') {
    await latency(queue, Number(words[0]));
  } else if (command === 'kept') {
    say({ kept: await queue.getCompletedCount() });
  } else throw new Error('usage: enqueue one|concurrent|bulk JOBS, drain SLOTS, latency SAMPLES, or kept');
  await queue.close();
}
lines.close();
process.exit(0);
