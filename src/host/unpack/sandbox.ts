// Runs the programs that read foreign archives, in a directory, as nobody.
//
// They run in a user namespace as its root. On the host that root is an id that owns nothing: whatever a hostile archive makes
// the program do, the kernel lets it write where anybody may write, and make no device node. The directory is handed over as the
// working directory, so that no path to it has to be open to others. Where the file system takes id maps, the program sees it
// through one that turns its ids into unmapped ones: what it writes as its root is root's on the disk, although nobody with any
// power on the host ever wrote there. The same map makes the kernel keep ACLs and file capabilities right.
import type { Argv, Host, RunOptions } from '../host.ts';
import { type IdMapRange, NOBODYS_IDS } from '../id-map.ts';

const MEMORY_LIMIT_BYTES = 4 * 2 ** 30;
const TIME_LIMIT_MS = 60 * 60_000;

export interface SandboxLimits {
  /** Largest file that may be written. */
  readonly fileBytes: number;
  readonly signal: AbortSignal;
}

export class Sandbox implements Disposable {
  readonly #host: Host;
  readonly #limits: SandboxLimits;
  readonly #ids: IdMapRange;
  readonly #namespace: string;
  readonly #cwd: string;
  readonly #close: () => void;

  private constructor(
    host: Host,
    limits: SandboxLimits,
    place: { ids: IdMapRange; namespace: string; cwd: string; close: () => void },
  ) {
    this.#host = host;
    this.#limits = limits;
    this.#ids = place.ids;
    this.#namespace = place.namespace;
    this.#cwd = place.cwd;
    this.#close = place.close;
  }

  /** Without a directory, for programs that only turn their input into output. */
  static async nowhere(host: Host, limits: SandboxLimits): Promise<Sandbox> {
    const { path: namespace } = await host.mounts.userNamespace(NOBODYS_IDS);
    return new Sandbox(host, limits, { ids: NOBODYS_IDS, namespace, cwd: '/', close() {} });
  }

  /** What programs write in `directory` belongs to unmapped ids. The file system must take id maps. */
  static async mapped(host: Host, directory: string, limits: SandboxLimits): Promise<Sandbox> {
    const { path: namespace } = await host.mounts.userNamespace(NOBODYS_IDS);
    const tree = await host.mounts.openMapped(directory, NOBODYS_IDS);
    return new Sandbox(host, limits, {
      ids: NOBODYS_IDS,
      namespace,
      cwd: tree.path,
      close: () => tree[Symbol.dispose](),
    });
  }

  /** What programs write in `directory`, which must be theirs, belongs to the ids of `owners`. */
  static async owning(
    host: Host,
    place: { directory: string; owners: IdMapRange },
    limits: SandboxLimits,
  ): Promise<Sandbox> {
    const { path: namespace } = await host.mounts.userNamespace(place.owners);
    return new Sandbox(host, limits, { ids: place.owners, namespace, cwd: place.directory, close() {} });
  }

  /** Ids of the programs. */
  get ids(): IdMapRange {
    return this.#ids;
  }

  /** The command that runs `program` inside. */
  command(program: Argv): Argv {
    const limits = ['--core=0', `--fsize=${this.#limits.fileBytes}`, `--as=${MEMORY_LIMIT_BYTES}`];
    return ['nsenter', `--user=${this.#namespace}`, '--', 'prlimit', ...limits, '--', ...program];
  }

  get options(): RunOptions {
    return { cwd: this.#cwd, signal: this.#limits.signal, timeoutMs: TIME_LIMIT_MS };
  }

  async run(program: Argv, options: RunOptions = {}): Promise<{ readonly stdout: string; readonly stderr: string }> {
    return await this.#host.run(this.command(program), { ...this.options, ...options });
  }

  [Symbol.dispose](): void {
    this.#close();
  }
}
