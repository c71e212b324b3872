// What tar and unsquashfs say while they unpack, judged line by line as it comes: there may be more of it than anybody keeps.
import { AppError } from '#src/lib/errors.ts';

const DEVICE_REFUSED =
  /Cannot mknod: Operation not permitted$|^create_inode: failed to create (character|block) device /;
const HARMLESS = [
  /^tar: Exiting with failure status due to previous errors$/,
  /^tar: Removing leading /,
  /^tar: .*: Warning: Cannot (acl_|setfattrat|set)/,
  /^tar: .*(implausibly old time stamp|in the future)/,
  /^tar: Ignoring unknown extended header/,
  /^write_xattr: /,
  /^\s*$/,
];
const MAX_LINE = 64 * 1024;
const SHOWN = 300;

export class Complaints {
  #rest = '';
  #serious: string | undefined;
  #devices = 0;

  add(chunk: Buffer): void {
    const lines = (this.#rest + chunk.toString()).split('\n');
    // Names come in lines as well, and may be as long as they like: the end tells what is wrong.
    this.#rest = (lines.pop() ?? '').slice(-MAX_LINE);
    for (const line of lines) this.#judge(line);
  }

  /** The number of device nodes that were refused. AppError 'invalid' with the first complaint that is not harmless. */
  settle(): number {
    this.#judge(this.#rest);
    this.#rest = '';
    if (this.#serious !== undefined) throw unfit(this.#serious);
    return this.#devices;
  }

  #judge(line: string): void {
    if (DEVICE_REFUSED.test(line)) this.#devices += 1;
    else if (!HARMLESS.some((pattern) => pattern.test(line))) this.#serious ??= line;
  }
}

/** With the end of what was said, which is where the reason is. */
export function unfit(complaint: string, cause?: unknown): AppError {
  const shown = complaint.length <= SHOWN ? complaint : `…${complaint.slice(-SHOWN)}`;
  return new AppError('invalid', `the archive cannot be unpacked: ${shown}`, { cause });
}
