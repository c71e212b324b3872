// The dnsmasq of a network: a daemon of its own that outlives ours, known by its command line.
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { CommandError } from '#src/host/command-error.ts';
import type { Host } from '#src/host/host.ts';
import { readKernelFile } from '#src/host/kernel-files.ts';
import { isStillThere, processLife } from '#src/host/process-life.ts';
import { sendDatagram } from '#src/host/datagram.ts';
import { sendSignal } from '#src/host/signal.ts';
import { ipText, parseNetwork } from '#src/lib/ip.ts';
import { AppError } from '#src/lib/errors.ts';
import { limited, poll } from '#src/lib/wait.ts';
import type { GoneNic, HostEntries, ManagedNetwork, NetworkContext, NetworkLease } from '../driver.ts';
import { addressOf } from './config-keys.ts';
import { parseLeaseFile, release4, release6 } from './dhcp-release.ts';
import { type DnsmasqAccount, dnsmasqArguments, type DnsmasqFiles, parseLeases } from './dnsmasq-arguments.ts';
import { dnsmasqNote, notedPid } from './dnsmasq-note.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';

const PROGRAM = 'dnsmasq';
const DHCP_PORT = { 4: 67, 6: 547 } as const;
const START_MS = 20_000;
const STOP_MS = 5000;
/** Entered by dnsmasq's user, who must not list it. */
const PASSABLE = 0o711;
const READABLE = 0o755;

export class Dnsmasq {
  readonly #context: NetworkContext;
  #account: Promise<DnsmasqAccount> | undefined;

  constructor(context: NetworkContext) {
    this.#context = context;
  }

  directory(network: string): string {
    return join(this.#context.directory, network);
  }

  #files(network: string): DnsmasqFiles {
    const directory = this.directory(network);
    const file = (kind: string): string => join(directory, `dnsmasq.${kind}`);
    return { pid: file('pid'), leases: file('leases'), hosts: file('hosts'), raw: file('raw') };
  }

  /** Leaves alone one that was started with the same settings. AppError with LXD's text when it does not stay. */
  async up(network: ManagedNetwork, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    const files = this.#files(network.name);
    await host.makeDirectory(this.directory(network.name), { mode: PASSABLE });
    await host.makeDirectory(files.hosts, { mode: READABLE });
    this.#account ??= unprivileged(host);
    const wanted = dnsmasqArguments(network, files, await this.#account);
    const raw = `${network.config['raw.dnsmasq'] ?? ''}\n`;
    const running = this.#find(network.name);
    if (wanted && running && isSame(running.argv, wanted) && (await this.#read(files.raw)) === raw) return;
    await this.stop(network.name, signal);
    await this.#forget(files, wanted ?? []);
    await host.writeFile(files.raw, raw, { mode: 0o644 });
    if (!wanted) return;
    await this.#start(wanted, signal);
    const started = this.#find(network.name);
    if (started) await host.writeFile(files.pid, dnsmasqNote(started.pid, wanted), { mode: 0o644 });
  }

  /** What nobody writes any more: leases where nothing is given out, the note of a server that is none. */
  async #forget({ leases, pid }: DnsmasqFiles, wanted: readonly string[]): Promise<void> {
    const { host } = this.#context;
    if (!wanted.some((word) => word.startsWith('--dhcp-leasefile='))) await host.removeTree(leases);
    if (wanted.length === 0) await host.removeTree(pid);
  }

  /** It goes into the background when it serves. */
  async #start(wanted: readonly string[], signal: AbortSignal): Promise<void> {
    try {
      await this.#context.host.run([PROGRAM, ...wanted], { signal, timeoutMs: START_MS, lasting: true });
    } catch (cause) {
      if (!(cause instanceof CommandError)) throw cause;
      const { exitCode, stderr } = cause;
      if (exitCode === null && !signal.aborted) {
        throw new AppError('internal', `The DNS and DHCP service cannot be started: ${cause.message}`, { cause });
      }
      const words = JSON.stringify(stderr.trim());
      const text = `The DNS and DHCP service exited prematurely: Process exited with non-zero value ${exitCode} (${words})`;
      throw new AppError('internal', text, { cause });
    }
  }

  /** What is absent is not an error. */
  async stop(network: string, signal: AbortSignal): Promise<void> {
    const running = this.#find(network);
    const life = running && processLife(running.pid);
    if (!life) return;
    sendSignal(running.pid, 'SIGTERM');
    const gone = () => (isStillThere(life) ? undefined : true);
    try {
      await poll(gone, 5, limited(STOP_MS, signal));
    } catch {
      signal.throwIfAborted();
      sendSignal(running.pid, 'SIGKILL');
      await poll(gone, 5, limited(STOP_MS, signal));
    }
  }

  async setHosts(network: string, entries: HostEntries, isOurs: (file: string) => boolean): Promise<void> {
    const { host } = this.#context;
    const { hosts } = this.#files(network);
    await host.makeDirectory(hosts, { mode: READABLE });
    const there = (await host.list(hosts)).filter(isOurs);
    let changed = false;
    for (const file of there.filter((name) => !entries.has(name))) {
      await host.removeTree(join(hosts, file));
      changed = true;
    }
    for (const [file, line] of entries) {
      const path = join(hosts, file);
      if ((await this.#read(path)) === `${line}\n`) continue;
      await host.writeFile(path, `${line}\n`, { mode: 0o644 });
      changed = true;
    }
    const running = changed ? this.#find(network) : undefined;
    if (running) sendSignal(running.pid, 'SIGHUP');
  }

  async lines(network: string): Promise<HostEntries> {
    const { hosts } = this.#files(network);
    const lines = new Map<string, string>();
    for (const file of await this.#context.host.list(hosts)) {
      const line = await this.#read(join(hosts, file));
      if (line !== undefined) lines.set(file, line.trim());
    }
    return lines;
  }

  async leases(network: string): Promise<readonly NetworkLease[]> {
    return parseLeases((await this.#read(this.#files(network).leases)) ?? '');
  }

  /** By the messages that their clients would send. */
  async release({ name, config }: Pick<ManagedNetwork, 'name' | 'config'>, gone: readonly GoneNic[]): Promise<void> {
    const { leases, serverDuid } = parseLeaseFile((await this.#read(this.#files(name).leases)) ?? '');
    for (const lease of leases) {
      const { family } = lease.address;
      const own = parseNetwork(addressOf(config, family) ?? '');
      const isGone = gone.some(({ hwaddr, hostname }) => {
        return family === 4 ? lease.identity === hwaddr : lease.name === hostname;
      });
      if (!own || !isGone) continue;
      const message = family === 4 ? release4(lease, own.address) : serverDuid && release6(lease, serverDuid);
      if (message) await sendDatagram({ address: ipText(own.address), port: DHCP_PORT[family] }, message);
    }
  }

  #read(path: string): Promise<string | undefined> {
    return readIfPresent(this.#context.host, path);
  }

  /** By the note that it left; without one (it was killed, or we were) among all processes. */
  #find(network: string): { readonly pid: number; readonly argv: readonly string[] } | undefined {
    const noted = notedPid(readKernelFile(this.#files(network).pid) ?? '');
    const pid = this.#isOurs(noted, network) ? noted : processes().find((one) => this.#isOurs(one, network));
    return pid === undefined ? undefined : { pid, argv: argvOf(pid).slice(1) };
  }

  /** Until we have written it the note belongs to the user that dnsmasq runs as: it proves nothing. */
  #isOurs(pid: number, network: string): boolean {
    if (!Number.isSafeInteger(pid) || pid <= 1) return false;
    const [program = '', ...rest] = argvOf(pid);
    const mark = `--pid-file=${this.#files(network).pid}`;
    if (!rest.includes(mark) || !(program === PROGRAM || program.endsWith(`/${PROGRAM}`))) return false;
    return userNamespace(pid) === userNamespace('self');
  }
}

function processes(): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** A process in a container may call itself what it likes, but it is not in ours. Undefined for one that is gone. */
function userNamespace(pid: number | 'self'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/user`);
  } catch {
    return undefined;
  }
}

/** [] for one that is gone, and for the kernel's own. */
function argvOf(pid: number): readonly string[] {
  const text = readKernelFile(`/proc/${pid}/cmdline`) ?? '';
  return text === '' ? [] : text.replace(/\0$/, '').split('\0');
}

function isSame(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((word, index) => word === right[index]);
}

/** nobody, and the group that goes with it, which has another name on every distribution. */
async function unprivileged(host: Host): Promise<DnsmasqAccount> {
  const field = (text: string, match: (fields: readonly string[]) => boolean) => {
    return text
      .split('\n')
      .map((line) => line.split(':'))
      .find(match);
  };
  const user = 'nobody';
  const gid = field(await host.readFile('/etc/passwd'), ([name]) => name === user)?.[3];
  const group = field(await host.readFile('/etc/group'), ([, , id]) => id === gid)?.[0];
  if (gid === undefined || group === undefined)
    throw new AppError('internal', `There is no user "${user}" to run dnsmasq as`);
  return { user, group };
}
