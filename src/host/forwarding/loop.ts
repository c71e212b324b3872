// Waits for events of many file descriptors, in one thread and without JavaScript's event loop.
import koffi from 'koffi';
import { unwrapCall } from '../thread-calls.ts';

export const EVENT = { readable: 1, writable: 4, broken: 8, hungUp: 16 } as const;
const ADD = 1;
const REMOVE = 2;
const MODIFY = 3;
const EPOLL_CLOEXEC = 0o2000000;
/** struct epoll_event is packed on x86 only. */
const EVENT_BYTES = process.arch === 'x64' ? 12 : 16;
const DATA_AT = EVENT_BYTES - 8;
const MAX_EVENTS = 256;

const libc = koffi.load('libc.so.6');
const epollCreate = libc.func('int epoll_create1(int flags)');
const epollControl = libc.func('int epoll_ctl(int epoll, int operation, int fd, void *event)');
const epollWait = libc.func('int epoll_wait(int epoll, void *events, int most, int timeout)');
const check = unwrapCall(koffi);
const EINTR = koffi.os.errno['EINTR'];

export type Handler = (events: number) => void;

export class Loop {
  readonly #epoll: number = check('epoll_create1', epollCreate(EPOLL_CLOEXEC));
  readonly #handlers = new Map<number, Handler>();
  readonly #failed: (error: unknown) => void;
  readonly #event = Buffer.alloc(EVENT_BYTES);
  readonly #events = Buffer.alloc(EVENT_BYTES * MAX_EVENTS);

  /** `failed` gets what handlers throw. */
  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  watch(fd: number, events: number, handler: Handler): void {
    this.#control(ADD, fd, events);
    this.#handlers.set(fd, handler);
  }

  /** Changes which events of a descriptor count, if it is watched; hang-ups and errors always do. */
  expect(fd: number, events: number): void {
    if (this.#handlers.has(fd)) this.#control(MODIFY, fd, events);
  }

  isWatched(fd: number): boolean {
    return this.#handlers.has(fd);
  }

  /** Before it is closed. Not watched is success. */
  forget(fd: number): void {
    if (this.#handlers.delete(fd)) this.#control(REMOVE, fd, 0);
  }

  /** Waits for events, or for `timeoutMs` (-1: for ever), and handles them. */
  turn(timeoutMs: number): void {
    const count = Number(epollWait(this.#epoll, this.#events, MAX_EVENTS, timeoutMs));
    if (count < 0 && koffi.errno() === EINTR) return;
    check('epoll_wait', count);
    for (let index = 0; index < count; index++) {
      const at = index * EVENT_BYTES;
      const handler = this.#handlers.get(this.#events.readInt32LE(at + DATA_AT));
      try {
        handler?.(this.#events.readUInt32LE(at));
      } catch (error) {
        this.#failed(error);
      }
    }
  }

  #control(operation: number, fd: number, events: number): void {
    this.#event.writeUInt32LE(events, 0);
    this.#event.writeInt32LE(fd, DATA_AT);
    check('epoll_ctl', epollControl(this.#epoll, operation, fd, this.#event));
  }
}
