// Loaded into a process that is measured (NODE_OPTIONS=--import): SIGUSR2 writes how late its event loop was since the last time.
import { writeFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

const delay = monitorEventLoopDelay({ resolution: 5 });
delay.enable();
process.on('SIGUSR2', () => {
  const [p50, p99, max] = [delay.percentile(50), delay.percentile(99), delay.max].map((ns) => ns / 1e6);
  delay.reset();
  writeFileSync(process.env.LOOP_DELAY_FILE, JSON.stringify({ p50, p99, max }));
});
