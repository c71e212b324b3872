// A socket to the kernel's rtnetlink, and the coding of its messages: numbers and buffers, nothing of what they mean.
import koffi from 'koffi';
import { AppError } from '#src/lib/errors.ts';
import { KernelError } from './kernel.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const SO_RCVTIMEO = 20;
const SOL_SOCKET = 1;
const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const NLM_F_DUMP = 0x300;
const NLM_F_ACK_TLVS = 0x200;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLMSGERR_ATTR_MSG = 1;
const HEADER = 16;
const BUFFER_BYTES = 64 * 1024;

const libc = koffi.load('libc.so.6');
const socketCall = libc.func('int socket(int domain, int type, int protocol)');
const setsockoptCall = libc.func('int setsockopt(int fd, int level, int name, void *value, uint length)');
const sendCall = libc.func('long send(int fd, void *data, ulong length, int flags)');
const recvCall = libc.func('long recv(int fd, void *data, ulong length, int flags)');
const closeCall = libc.func('int close(int fd)');
const errnoNames = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));

/** A message less its header. */
export interface NetlinkMessage {
  readonly type: number;
  /** Beside the request's own. */
  readonly flags?: number;
  readonly body: Buffer;
}

/**
 * Sends one change and waits for the acknowledgement. The kernel does the work while it takes the message, so that happens on
 * another thread. Rejects with KernelError, `errno` and the kernel's own words in it.
 */
export async function changeNetlink(message: NetlinkMessage): Promise<void> {
  const socket = new RouteSocket();
  try {
    await socket.change(message);
  } finally {
    socket.close();
  }
}

/** Blocks for the time the kernel takes to answer (well under a millisecond). */
export function dumpNetlink(type: number, body: Buffer): readonly Buffer[] {
  const socket = new RouteSocket();
  try {
    return socket.dump(type, body);
  } finally {
    socket.close();
  }
}

export class RouteSocket {
  readonly #fd: number;
  #sequence = 0;

  constructor() {
    this.#fd = socketCall(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0) as number;
    if (this.#fd < 0) throw new AppError('internal', 'cannot open a netlink socket');
    const on = Buffer.alloc(4);
    on.writeInt32LE(1);
    for (const option of [NETLINK_GET_STRICT_CHK, NETLINK_EXT_ACK, NETLINK_CAP_ACK]) {
      setsockoptCall(this.#fd, SOL_NETLINK, option, on, on.length);
    }
    const limit = Buffer.alloc(16); // struct timeval: 1 s
    limit.writeBigInt64LE(1n, 0);
    setsockoptCall(this.#fd, SOL_SOCKET, SO_RCVTIMEO, limit, limit.length);
  }

  close(): void {
    closeCall(this.#fd);
  }

  /** One request, one answer; undefined for a mere acknowledgement. */
  ask(type: number, body: Buffer): Buffer | undefined {
    const [first] = this.#exchange({ type, flags: NLM_F_ACK, body });
    return first;
  }

  dump(type: number, body: Buffer): readonly Buffer[] {
    return this.#exchange({ type, flags: NLM_F_DUMP, body });
  }

  async change({ type, flags = 0, body }: NetlinkMessage): Promise<void> {
    const message = this.#encode({ type, flags: flags | NLM_F_ACK, body });
    await new Promise<void>((resolve, reject) => {
      sendCall.async(this.#fd, message, message.length, 0, (error: Error | null, sent: number | bigint) => {
        if (error) reject(error);
        else if (Number(sent) < 0) reject(new AppError('internal', 'netlink: send failed'));
        else resolve();
      });
    });
    const answers: Buffer[] = [];
    while (!this.#receive(answers));
  }

  #exchange(request: NetlinkMessage): readonly Buffer[] {
    const message = this.#encode(request);
    if (Number(sendCall(this.#fd, message, message.length, 0)) < 0)
      throw new AppError('internal', 'netlink: send failed');
    const answers: Buffer[] = [];
    while (!this.#receive(answers));
    return answers;
  }

  #encode({ type, flags = 0, body }: NetlinkMessage): Buffer {
    const message = Buffer.concat([Buffer.alloc(HEADER), body]);
    message.writeUInt32LE(message.length, 0);
    message.writeUInt16LE(type, 4);
    message.writeUInt16LE(NLM_F_REQUEST | flags, 6);
    message.writeUInt32LE(++this.#sequence, 8);
    return message;
  }

  /** True when the answer is complete. */
  #receive(answers: Buffer[]): boolean {
    const buffer = Buffer.allocUnsafe(BUFFER_BYTES);
    const length = Number(recvCall(this.#fd, buffer, buffer.length, 0));
    if (length <= 0) throw new AppError('internal', 'netlink: no answer');
    for (let at = 0; at + HEADER <= length; ) {
      const size = buffer.readUInt32LE(at);
      const type = buffer.readUInt16LE(at + 4);
      const body = buffer.subarray(at + HEADER, at + size);
      if (type === NLMSG_DONE) return true;
      if (type === NLMSG_ERROR) return checkAcknowledgement(body, buffer.readUInt16LE(at + 6));
      answers.push(body);
      at += (size + 3) & ~3;
    }
    return false;
  }
}

/** struct nlmsgerr: errno, the header of the request, then what the kernel has to say. */
function checkAcknowledgement(body: Buffer, flags: number): true {
  const errno = -body.readInt32LE(0);
  if (errno === 0) return true;
  const said = flags & NLM_F_ACK_TLVS ? attributes(body, 4 + HEADER).get(NLMSGERR_ATTR_MSG) : undefined;
  const name = errnoNames.get(errno) ?? `errno ${errno}`;
  const words = said ? cText(said) : '';
  throw new KernelError(words === '' ? 'netlink' : `netlink: ${words}`, name);
}

/** Attributes after a fixed part of `offset` bytes. */
export function attributes(body: Buffer, offset: number): ReadonlyMap<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = offset; at + 4 <= body.length; ) {
    const size = body.readUInt16LE(at);
    if (size < 4) break;
    found.set(body.readUInt16LE(at + 2) & 0x3fff, body.subarray(at + 4, at + size));
    at += (size + 3) & ~3;
  }
  return found;
}

export function cText(bytes: Buffer | undefined): string {
  return bytes?.toString('utf8').replace(/\0.*$/s, '') ?? '';
}

export function attribute(type: number, ...values: readonly Buffer[]): Buffer {
  const length = 4 + values.reduce((sum, { length: bytes }) => sum + bytes, 0);
  const header = Buffer.alloc(4);
  header.writeUInt16LE(length, 0);
  header.writeUInt16LE(type, 2);
  return Buffer.concat([header, ...values, Buffer.alloc((4 - (length & 3)) & 3)]);
}

const NLA_F_NESTED = 0x8000;

export function nested(type: number, ...values: readonly Buffer[]): Buffer {
  return attribute(type | NLA_F_NESTED, ...values);
}

export function textAttribute(type: number, text: string): Buffer {
  return attribute(type, Buffer.from(`${text}\0`));
}

export function uint32Attribute(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return attribute(type, bytes);
}

export function uint8Attribute(type: number, value: number): Buffer {
  return attribute(type, Buffer.from([value]));
}

export function int32Attribute(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return attribute(type, bytes);
}
