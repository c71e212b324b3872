// Commands that a container's own init runs, for what is not the same for those that are attached to it.
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';
import type { TestDaemon } from '../instances/daemon-support.ts';
import type { Outcome } from '../instances/hostile-support.ts';

const RUNNER = `#!/bin/sh
while :; do
  if [ -e /root/go ]; then
    rm /root/go
    sh /root/job >/root/output 2>&1 </dev/null
    echo $? >/root/code.new
    mv /root/code.new /root/code
  fi
  sleep 0.05
done
`;
const JOB_LIMIT_MS = 20_000;

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

export class JobGuest {
  readonly #daemon: TestDaemon;
  readonly name: string;

  private constructor(daemon: TestDaemon, name: string) {
    this.#daemon = daemon;
    this.name = name;
  }

  static async launch(daemon: TestDaemon, name: string, changes: object): Promise<JobGuest> {
    const guest = new JobGuest(daemon, name);
    await daemon.launch(name, { ...changes, start: false });
    await guest.#push('/etc/rc.local', RUNNER, '0755');
    await daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'start' });
    await daemon.ready(name);
    return guest;
  }

  exec(command: readonly string[]): Promise<Outcome> {
    return this.sh(command.map(quoted).join(' '));
  }

  async sh(script: string): Promise<Outcome> {
    await this.#push('/root/job', script);
    await this.#push('/root/go', '');
    const done = async () => (await this.#pull('/root/code')) ?? undefined;
    const code = Number(await poll(done, 20, AbortSignal.timeout(JOB_LIMIT_MS * timeFactor())));
    await this.#daemon.call('DELETE', this.#file('/root/code'));
    return { code, output: (await this.#pull('/root/output')) ?? '' };
  }

  #file(path: string): string {
    return `/1.0/instances/${this.name}/files?path=${path}`;
  }

  async #push(path: string, content: string, mode = '0644'): Promise<void> {
    const headers = { 'x-lxd-type': 'file', 'x-lxd-mode': mode, 'x-lxd-uid': '0', 'x-lxd-gid': '0' };
    const { error } = await this.#daemon.call('POST', this.#file(path), Buffer.from(content), headers);
    if (error !== '') throw new Error(error);
  }

  async #pull(path: string): Promise<string | undefined> {
    const { status, text } = await this.#daemon.call('GET', this.#file(path));
    return status === 200 ? text : undefined;
  }
}
