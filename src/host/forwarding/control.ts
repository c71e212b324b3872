// The forward server's end of its control socket, which only root reaches.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { unixAddress } from './addresses.ts';
import { accept, AF, bind, close, listen, receive, send, setMode, SOCK, socket } from './calls.ts';
import { EVENT, type Loop } from './loop.ts';
import { CONTROL_SOCKET, type ForwardAnswer, type ForwardRequest } from './messages.ts';

const PRIVATE = 0o600;
const MAX_LINE = 4 * 1024 * 1024;
const buffer = Buffer.allocUnsafeSlow(65_536);

export interface ControlParts {
  readonly loop: Loop;
  readonly directory: string;
  readonly answer: (request: ForwardRequest) => ForwardAnswer;
}

export class Control {
  readonly #parts: ControlParts;
  readonly #path: string;
  readonly #fd: number;

  /** There is one server in a directory at a time: the daemon's lock sees to that. */
  constructor(parts: ControlParts) {
    this.#parts = parts;
    this.#path = join(parts.directory, CONTROL_SOCKET);
    this.#fd = socket(AF.unix, SOCK.stream);
    setMode(this.#fd, PRIVATE);
    bind(this.#fd, unixAddress(this.#path, false));
    listen(this.#fd);
    parts.loop.watch(this.#fd, EVENT.readable, () => this.#accept());
  }

  close(): void {
    rmSync(this.#path, { force: true });
    close(this.#fd);
  }

  #accept(): void {
    for (let one = accept(this.#fd); one; one = accept(this.#fd)) this.#serve(one.fd);
  }

  #serve(fd: number): void {
    const { loop, answer } = this.#parts;
    let rest = Buffer.alloc(0);
    const end = (): void => {
      loop.forget(fd);
      close(fd);
    };
    loop.watch(fd, EVENT.readable, () => {
      try {
        const length = receive(fd, buffer);
        if (length === undefined) return;
        rest = Buffer.concat([rest, buffer.subarray(0, length)]);
        if (length === 0 || rest.length > MAX_LINE) return end();
        for (let at = rest.indexOf('\n'); at >= 0; at = rest.indexOf('\n')) {
          const request = JSON.parse(rest.toString('utf8', 0, at)) as ForwardRequest;
          rest = rest.subarray(at + 1);
          send(fd, Buffer.from(`${JSON.stringify(answer(request))}\n`));
        }
      } catch {
        end(); // the daemon is gone, or is none of ours
      }
    });
  }
}
