// The limits of the kernel that a host of many containers raises (config/sysctl.conf), for the time of a run.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const TABLE = new URL('../../config/sysctl.conf', import.meta.url);

/** Put back when disposed. Without them the kernel's defaults end the guests, of every engine alike. */
export function raisedLimits(): Disposable {
  const before = new Map<string, string>();
  for (const line of readFileSync(TABLE, 'utf8').split('\n')) {
    const [, key, value] = /^([\w.]+) = (\d+)$/.exec(line) ?? [];
    if (key === undefined || value === undefined) continue;
    const file = `/proc/sys/${key.replaceAll('.', '/')}`;
    if (!existsSync(file)) continue;
    before.set(file, readFileSync(file, 'utf8'));
    writeFileSync(file, value);
  }
  return {
    [Symbol.dispose]() {
      for (const [file, value] of before) writeFileSync(file, value);
    },
  };
}
