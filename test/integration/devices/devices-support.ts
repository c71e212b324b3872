// A daemon with the stock client, and looks into its containers.
import { mkdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { poll } from '#src/lib/wait.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';

export interface DeviceBench extends AsyncDisposable {
  readonly daemon: TestDaemon;
  /** A directory of the test's own. */
  readonly work: string;
  /** Standard output of `lxc …`; rejects with what it complained about. */
  lxc(...args: readonly string[]): Promise<string>;
  /** Launches it, and resolves when its init is up. */
  launch(name: string, ...args: readonly string[]): Promise<void>;
  pid(name: string): Promise<number>;
  /** Standard output of a command in the container's namespaces. */
  inside(name: string, ...argv: readonly string[]): Promise<string>;
  mountinfo(name: string): Promise<string>;
}

export async function deviceBench(): Promise<DeviceBench> {
  const daemon = await TestDaemon.start();
  const work = join(daemon.root, 'work');
  await mkdir(join(work, 'conf'), { recursive: true });
  await daemon.addImage();
  const env = { PATH: process.env['PATH'] ?? '', HOME: work, LXD_DIR: daemon.root, LXD_CONF: join(work, 'conf') };
  const lxc = async (...args: readonly string[]): Promise<string> => {
    const running = run('lxc', args, { env, cwd: work });
    running.child.stdin?.end();
    return (await running).stdout;
  };
  const pid = async (name: string): Promise<number> => {
    return poll(async () => (await daemon.state(name)).pid || undefined, 50, AbortSignal.timeout(20_000));
  };
  return {
    daemon,
    work,
    lxc,
    pid,
    async launch(name, ...args) {
      await lxc('launch', 'bb', name, ...args);
      await daemon.ready(name);
    },
    async inside(name, ...argv) {
      const init = await pid(name);
      const user = (id: number | 'self') => readlink(`/proc/${id}/ns/user`);
      const mapped = (await user(init)) === (await user('self')) ? [] : ['-U'];
      const enter = ['-t', String(init), ...mapped, '-m', '-u', '-i', '-n', '-p', '--'];
      return (await run('nsenter', [...enter, ...argv])).stdout;
    },
    mountinfo: async (name) => readFile(`/proc/${await pid(name)}/mountinfo`, 'utf8'),
    [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose](),
  };
}
