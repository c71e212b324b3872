// When a process has ended.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { isStillThere, processLife } from '#src/host/process-life.ts';

describe('the life of a process', () => {
  it('is that of this one, as long as it runs', () => {
    const life = processLife(process.pid);

    expect(life && isStillThere(life)).toBe(true);
  });

  it('is over when it has ended, also while its parent has not looked', async () => {
    // the shell becomes a program that does not know that it has a child
    const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      const [line] = (await once(parent.stdout, 'data')) as [Buffer];
      await expect.poll(() => processLife(Number(String(line)))).toBeUndefined();
    } finally {
      parent.kill('SIGKILL');
    }
  });

  it('is not that of a later process with its number', () => {
    const { pid, startTime } = processLife(process.pid) ?? { pid: 0, startTime: '0' };

    expect(isStillThere({ pid, startTime: String(Number(startTime) - 1) })).toBe(false);
  });
});
