/**
 * The console of a running container: what it prints is read from the log that the monitor keeps, what is typed is written to the
 * terminal itself. Not by liblxc's own "console" command: through that, the monitor writes to its client and waits for it, and a
 * client that stops reading, or is stopped itself, stops the monitor and with it the container.
 */
import { closeSync, fstatSync, readdirSync, readlinkSync, type Stats, write } from 'node:fs';
import { Writable } from 'node:stream';
import { consoleDevice } from '#src/host/contained/terminal.ts';
import { FollowedFile } from '#src/host/followed-file.ts';
import { descriptorOf, openProcess, setWindowSize, takesWrites, terminalNumber } from '#src/host/kernel-descriptors.ts';
import { readKernelFile } from '#src/host/kernel-files.ts';
import { AppError } from '#src/lib/errors.ts';
import type { RuntimeConsole, RuntimeContainer } from '../driver.ts';

/** A terminal that takes anything takes this much at once. */
const PIECE_BYTES = 256;
/** How soon to look again whether a process has read what was typed. */
const RETRY_MS = 20;

export interface ConsoleJob {
  readonly container: RuntimeContainer;
  readonly initPid: number;
  /** Resolves at the end of the container's present life. */
  readonly ended: Promise<unknown>;
}

/** AppError 'invalid' when there is no console. */
export async function openConsole({ container, initPid, ended }: ConsoleJob): Promise<RuntimeConsole> {
  const terminal = await consoleTerminal(initPid);
  let output: FollowedFile;
  try {
    output = await FollowedFile.open(container.consoleLogPath);
  } catch (error) {
    closeSync(terminal);
    throw error;
  }
  const input = new TerminalInput(terminal);
  const finish = (): void => {
    input.destroy();
    output.finish();
  };
  ended.then(finish, finish);
  return {
    output,
    input,
    resize: (size) => {
      if (!input.destroyed) setWindowSize(terminal, size);
    },
    close: () => {
      input.destroy();
      output.destroy();
    },
  };
}

/** Owns the descriptor of a terminal's master, and never waits in the kernel for it to take something. */
class TerminalInput extends Writable {
  readonly #fd: number;
  #timer: NodeJS.Timeout | undefined;
  #isWriting = false;

  constructor(fd: number) {
    super({ highWaterMark: 16 * 1024 });
    this.#fd = fd;
  }

  override _write(data: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.destroyed) return;
    if (data.length === 0) {
      done();
      return;
    }
    if (!takesWrites(this.#fd)) {
      this.#timer = setTimeout(() => this._write(data, _encoding, done), RETRY_MS).unref();
      return;
    }
    this.#isWriting = true;
    write(this.#fd, data, 0, Math.min(data.length, PIECE_BYTES), null, (error, count) => {
      this.#isWriting = false;
      if (this.destroyed) closeSync(this.#fd);
      else if (error) done(error);
      else this._write(data.subarray(count), _encoding, done);
    });
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    clearTimeout(this.#timer);
    if (!this.#isWriting) closeSync(this.#fd);
    callback(error);
  }
}

/** The master of the container's console, which its monitor has open; the caller closes it. */
async function consoleTerminal(initPid: number): Promise<number> {
  const monitorPid = Number(/^PPid:\s*(\d+)$/m.exec(readKernelFile(`/proc/${initPid}/status`) ?? '')?.[1] ?? 0);
  if (monitorPid <= 1) throw new AppError('invalid', 'Instance is not running');
  const masters = takeMasters(monitorPid);
  let console = masters[0];
  try {
    // Somebody uses liblxc's own tools beside us.
    if (masters.length > 1) {
      const device = await consoleDevice(initPid);
      console = masters.find((fd) => device && isMasterOf(device, fd));
    }
    if (console === undefined) throw new AppError('invalid', 'The instance has no console');
    return console;
  } finally {
    for (const fd of masters) if (fd !== console) closeSync(fd);
  }
}

/** What the process has open as the master of a terminal, as descriptors of our own. */
function takeMasters(pid: number): readonly number[] {
  const process = openProcess(pid);
  const taken: number[] = [];
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      if (linkTarget(`/proc/${pid}/fd/${fd}`).endsWith('/ptmx')) taken.push(descriptorOf(process, Number(fd)));
    }
    return taken;
  } catch (error) {
    for (const fd of taken) closeSync(fd);
    throw error;
  } finally {
    closeSync(process);
  }
}

/** Empty: closed meanwhile. */
function linkTarget(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

/** Of a device number as stat(2) gives it: the low byte, and what is above the major number. */
function minorOf(device: number): number {
  return (device & 0xff) | ((device >>> 12) & 0xfff00);
}

function isMasterOf(console: Stats, master: number): boolean {
  return console.dev === fstatSync(master).dev && minorOf(console.rdev) === terminalNumber(master);
}
