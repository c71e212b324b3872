// Starts programs by posix_spawn(3). Node's own way forks: the kernel copies the page tables of a daemon of a hundred MiB and then
// each page that it touches, several milliseconds in which nothing else is done. This shares the memory until the program runs.
import { accessSync, closeSync, constants } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import koffi from 'koffi';
import { atNormalPriority } from '#src/lib/priority.ts';
import type { Argv } from './host.ts';
import { unwrapCall } from './thread-calls.ts';

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 0o2000001;
const F_DUPFD_CLOEXEC = 1030;
const SETSIGDEF = 0x04;
const SETSIGMASK = 0x08;
const SETSID = 0x80;
const WNOHANG = 1;
const MSG_PEEK = 2;
const MSG_DONTWAIT = 0x40;
/** glibc: 336 and 80 bytes on 64 bit machines; sets of signals are 128. */
const STRUCT_BYTES = 512;
const SIGNALS_BYTES = 128;
/** The program's own: 0 to 2, and two more of a relay. Ours must not be among them when they are put in place. */
const FIRST_FREE = 10;
/** Ends of programs are told by a signal; should one be missed, this finds them. */
const CHECK_MS = 1000;

const libc = koffi.load('libc.so.6');
const socketpairCall = libc.func('int socketpair(int domain, int type, int protocol, _Out_ int *fds)');
const dupCall = libc.func('fcntl', 'int', ['int', 'int', 'int']);
const spawnCall = libc.func(
  'int posix_spawn(_Out_ int *pid, str path, void *actions, void *attributes, const char **argv, const char **env)',
);
const actionsInit = libc.func('int posix_spawn_file_actions_init(void *actions)');
const actionsDup = libc.func('int posix_spawn_file_actions_adddup2(void *actions, int from, int to)');
const actionsChdir = libc.func('int posix_spawn_file_actions_addchdir_np(void *actions, str path)');
const actionsDestroy = libc.func('int posix_spawn_file_actions_destroy(void *actions)');
const attributesInit = libc.func('int posix_spawnattr_init(void *attributes)');
const attributesFlags = libc.func('int posix_spawnattr_setflags(void *attributes, short flags)');
const attributesMask = libc.func('int posix_spawnattr_setsigmask(void *attributes, void *signals)');
const attributesDefault = libc.func('int posix_spawnattr_setsigdefault(void *attributes, void *signals)');
const sigfillset = libc.func('int sigfillset(void *signals)');
const recvCall = libc.func('long recv(int fd, void *buffer, size_t length, int flags)');
const waitpidCall = libc.func('int waitpid(int pid, _Out_ int *status, int options)');
const check = unwrapCall(koffi);
const errnoNames = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));

export interface SpawnRequest {
  readonly argv: Argv;
  /** All of its environment. `PATH` in it is where the program is looked for. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Its standard input; stays ours to close. Absent: a stream. */
  readonly input?: number | undefined;
  /** Its standard error; stays ours to close. Absent: a stream. */
  readonly errors?: number | undefined;
  /** Two more streams: its descriptors 3 (to read) and 4 (to write). */
  readonly withRelay: boolean;
}

/** A program, leader of a session and of a process group of its own. */
export interface Spawned {
  /** Undefined: it could not be started, `exit` says why. */
  readonly pid: number | undefined;
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Whether there is more to read of it, or its end. */
  readonly isUnread: () => boolean;
  readonly stderr: Readable;
  readonly relay?: { readonly input: Writable; readonly output: Readable };
  /** Its exit code, null when a signal ended it; rejects when it was not started. It is reaped by then. */
  readonly exit: Promise<number | null>;
}

/** TypeError for a NUL in what is passed on: the program would see only what is before it. */
export function spawnProgram(request: SpawnRequest): Spawned {
  const { argv, env, cwd } = request;
  const strings = [...argv, cwd, ...Object.entries(env).flat()];
  if (strings.some((text) => text.includes('\0'))) throw new TypeError('an argument of a command has a null byte');
  const ends = new Ends();
  try {
    const stdin = ends.lendOrPair(request.input, 0);
    const stdout = ends.pair(1);
    const stderr = ends.lendOrPair(request.errors, 2);
    const relay = request.withRelay ? [ends.pair(3), ends.pair(4)] : [];
    const started = children.started(() => atNormalPriority(() => posixSpawn(request, ends.placed)));
    if (started instanceof Error) {
      ends.closeOurs();
      const exit = Promise.reject(started);
      exit.catch(() => undefined); // whoever awaits it gets it
      const streams = { stdin: discarded(), stdout: discarded(), isUnread: () => false, stderr: discarded() };
      return { pid: undefined, ...streams, exit };
    }
    const exit = children.end(started);
    const [input, output] = relay;
    const said = readableEnd(stdout);
    return {
      pid: started,
      stdin: writableEnd(stdin),
      stdout: said,
      isUnread: () => isUnread(said, stdout),
      stderr: readableEnd(stderr),
      ...(input !== undefined && output !== undefined
        ? { relay: { input: writableEnd(input), output: readableEnd(output) } }
        : {}),
      exit,
    };
  } catch (error) {
    ends.closeOurs();
    throw error;
  } finally {
    ends.closeTheirs();
  }
}

/** Descriptors on both sides, closed whatever happens. */
class Ends {
  readonly placed: { readonly from: number; readonly to: number }[] = [];
  readonly #ours: number[] = [];
  readonly #theirs: number[] = [];

  /** A stream socket as Node's own children have, whose other end becomes the program's descriptor `to`. */
  pair(to: number): number {
    const fds = [-1, -1];
    check('socketpair', socketpairCall(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, fds));
    const [ours = -1, theirs = -1] = fds;
    this.#ours.push(ours);
    this.#theirs.push(theirs);
    this.#place(theirs, to);
    return ours;
  }

  /** A descriptor of ours becomes the program's; without one a stream does, whose other end is returned. */
  lendOrPair(fd: number | undefined, to: number): number | undefined {
    if (fd === undefined) return this.pair(to);
    this.#place(fd, to);
    return undefined;
  }

  #place(fd: number, to: number): void {
    let from = fd;
    if (fd < FIRST_FREE) {
      from = check('fcntl', dupCall(fd, F_DUPFD_CLOEXEC, FIRST_FREE));
      this.#theirs.push(from);
    }
    this.placed.push({ from, to });
  }

  closeTheirs(): void {
    for (const fd of this.#theirs) closeSync(fd);
  }

  closeOurs(): void {
    for (const fd of this.#ours) closeSync(fd);
  }
}

/** Its pid, or why it was not started. */
function posixSpawn(request: SpawnRequest, placed: Ends['placed']): number | Error {
  const { argv, env, cwd } = request;
  const actions = Buffer.alloc(STRUCT_BYTES);
  actionsInit(actions);
  try {
    for (const { from, to } of placed) actionsDup(actions, from, to);
    actionsChdir(actions, cwd);
    const environment = [...Object.entries(env).map(([name, value]) => `${name}=${value}`), null];
    const pid = [0];
    const path = find(argv[0], env['PATH'] ?? '');
    const errno =
      path === undefined
        ? koffi.os.errno['ENOENT']
        : spawnCall(pid, path, actions, attributes(), [...argv, null], environment);
    if (errno === 0) return pid[0] as number;
    const code = errnoNames.get(Number(errno)) ?? `errno ${String(errno)}`;
    return Object.assign(new Error(`spawn ${argv[0]} ${code}`), { code });
  } finally {
    actionsDestroy(actions);
  }
}

let prepared: Buffer | undefined;

/** A session of its own, and all signals as a program expects them: Node ignores some. The same for all programs. */
function attributes(): Buffer {
  if (prepared) return prepared;
  const made = Buffer.alloc(STRUCT_BYTES);
  const signals = Buffer.alloc(SIGNALS_BYTES);
  attributesInit(made);
  attributesFlags(made, SETSIGDEF | SETSIGMASK | SETSID);
  attributesMask(made, signals);
  sigfillset(signals);
  attributesDefault(made, signals);
  prepared = made;
  return made;
}

const found = new Map<string, string>();

/** Where execvp(3) would find it. Looked for again when it has gone from where it was. */
function find(program: string, path: string): string | undefined {
  if (program.includes('/')) return program;
  const key = `${path}\0${program}`;
  const known = found.get(key);
  if (known !== undefined && isExecutable(known)) return known;
  const candidates = path.split(':').map((folder) => join(folder === '' ? '.' : folder, program));
  const first = candidates.find(isExecutable);
  if (first === undefined) found.delete(key);
  else found.set(key, first);
  return first;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function readableEnd(fd: number | undefined): Readable {
  return fd === undefined ? silent() : new Socket({ fd, readable: true, writable: false });
}

function writableEnd(fd: number | undefined): Writable {
  return fd === undefined ? discarded() : new Socket({ fd, readable: false, writable: true });
}

/** A reader that is slower than the program: the rest is in the stream, or in the kernel, where an end is 0 bytes. */
function isUnread(stream: Readable, fd: number): boolean {
  if (stream.destroyed) return false;
  return stream.readableLength > 0 || Number(recvCall(fd, Buffer.alloc(1), 1, MSG_PEEK | MSG_DONTWAIT)) >= 0;
}

/** Has ended once somebody reads it. */
function silent(): PassThrough {
  return new PassThrough().end();
}

function discarded(): PassThrough {
  return new PassThrough().end().resume();
}

/** Programs that run, and who waits for them. */
class Children {
  readonly #ends = new Map<number, (code: number | null) => void>();
  #listening = false;
  #timer: NodeJS.Timeout | undefined;

  /** Gives the pid of what `start` starts, which may end at once: from before on the signal is listened to. */
  started(start: () => number | Error): number | Error {
    if (!this.#listening) process.on('SIGCHLD', this.#reap);
    this.#listening = true;
    const pid = start();
    if (pid instanceof Error) this.#rest();
    return pid;
  }

  end(pid: number): Promise<number | null> {
    // Keeps the process while a program runs, as Node's own children do.
    this.#timer ??= setInterval(this.#reap, CHECK_MS);
    return new Promise((resolve) => this.#ends.set(pid, resolve));
  }

  readonly #reap = (): void => {
    for (const [pid, resolve] of this.#ends) {
      const status = [0];
      if (Number(waitpidCall(pid, status, WNOHANG)) === 0) continue;
      this.#ends.delete(pid);
      resolve(exitCode(status[0] as number));
    }
    this.#rest();
  };

  #rest(): void {
    if (this.#ends.size > 0) return;
    process.off('SIGCHLD', this.#reap);
    this.#listening = false;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

const children = new Children();

/** Of a status as waitpid(2) gives it. */
function exitCode(status: number): number | null {
  return (status & 0x7f) === 0 ? (status >> 8) & 0xff : null;
}
