// Names that come and go in directories. fs.watch() would report every write to what is in them as well, and in /dev that is a lot.
import koffi from 'koffi';
import { readReports } from './pollable.ts';
import { CallError, unwrapCall } from './thread-calls.ts';

const NONBLOCK_CLOEXEC = 0o2004000;
/** Attributes, moves, creation and removal; of the directory itself, too. */
const MASK = 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800 | 0x01000000;
const HEADER = 16;

const libc = koffi.load('libc.so.6');
const initCall = libc.func('int inotify_init1(int flags)');
const addCall = libc.func('int inotify_add_watch(int fd, str path, uint mask)');
const removeCall = libc.func('int inotify_rm_watch(int fd, int watch)');
const dupCall = libc.func('int fcntl(int fd, int command, int first)');
const closeCall = libc.func('int close(int fd)');
const F_DUPFD_CLOEXEC = 1030;
const check = unwrapCall(koffi);

/** One for all directories: instances of inotify are few. */
export class DirectoryWatch {
  readonly #fd: number;
  readonly #stream: { close(): void };

  /** `changed` gets the number that add() gave. */
  constructor(changed: (watch: number) => void) {
    this.#fd = check('inotify_init1', initCall(NONBLOCK_CLOEXEC));
    const reader = check('fcntl', dupCall(this.#fd, F_DUPFD_CLOEXEC, 0));
    this.#stream = readReports(reader, (data) => {
      for (let at = 0; at + HEADER <= data.length; at += HEADER + data.readUInt32LE(at + 12)) {
        changed(data.readInt32LE(at));
      }
    });
  }

  /** The same number for the same directory. undefined: there is no such directory. */
  add(path: string): number | undefined {
    try {
      return check('inotify_add_watch', addCall(this.#fd, path, MASK));
    } catch (error) {
      if (error instanceof CallError && ['ENOENT', 'ENOTDIR', 'EACCES'].includes(error.errno)) return undefined;
      throw error;
    }
  }

  /** One that is gone with its directory is success. */
  remove(watch: number): void {
    removeCall(this.#fd, watch);
  }

  close(): void {
    this.#stream.close();
    closeCall(this.#fd);
  }
}
