// The commands in a stream of btrfs send: read as they pass, so that a stream makes one subvolume and touches no other.
import { AppError } from '#src/lib/errors.ts';

const MAGIC = Buffer.from('btrfs-stream\0');
const HEADER_BYTES = 17; // magic, version
const COMMAND_BYTES = 10; // length, command, checksum
/** Of both versions of the format; the kernel's are much shorter. */
const MAX_COMMAND_BYTES = 4 << 20;
const COMMAND = { subvolume: 1, snapshot: 2, clone: 16, end: 21 } as const;
const ATTRIBUTE = { uuid: 1, cloneUuid: 20 } as const;
const UUID_BYTES = 16;

export interface StreamBase {
  /** What the sender knows the base as: 32 hexadecimal digits. */
  readonly guid: string;
  /** What it is known as here. */
  readonly localUuid: string;
}

export interface CheckedStream {
  readonly chunks: AsyncIterable<Buffer>;
  /** Of the subvolume that the stream makes, once its first command has passed. */
  uuid(): string;
}

/**
 * The stream as it is to be given to btrfs receive: up to its end, which must come. AppError 'invalid' as soon as it would make anything
 * but one subvolume, or read from any but that one and its base.
 */
export function checkedStream(source: AsyncIterable<unknown>, base: StreamBase | undefined): CheckedStream {
  const check = new StreamCheck(base);
  return { chunks: pass(source, check), uuid: () => check.uuid };
}

async function* pass(source: AsyncIterable<unknown>, check: StreamCheck): AsyncGenerator<Buffer> {
  let waiting: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    waiting = waiting.length === 0 ? (chunk as Buffer) : Buffer.concat([waiting, chunk as Buffer]);
    const used = check.take(waiting);
    if (used > 0) yield waiting.subarray(0, used);
    waiting = waiting.subarray(used);
  }
  if (waiting.length > 0 || !check.isComplete) throw invalid('it was cut off');
}

class StreamCheck {
  readonly #base: StreamBase | undefined;
  #isBegun = false;
  isComplete = false;
  uuid = '';

  constructor(base: StreamBase | undefined) {
    this.#base = base;
  }

  /** Looks at the whole commands in it, and changes them where the base has another name here. Returns how many bytes they are. */
  take(bytes: Buffer): number {
    let at = 0;
    if (!this.#isBegun) {
      if (bytes.length < HEADER_BYTES) return 0;
      if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw invalid('it does not begin as one');
      this.#isBegun = true;
      at = HEADER_BYTES;
    }
    while (bytes.length - at >= COMMAND_BYTES) {
      const length = bytes.readUInt32LE(at) + COMMAND_BYTES;
      if (length > MAX_COMMAND_BYTES) throw invalid('a command of it is too long');
      if (bytes.length - at < length) break;
      this.#command(bytes.subarray(at, at + length));
      at += length;
    }
    return at;
  }

  #command(command: Buffer): void {
    if (this.isComplete) throw invalid('it goes on after its end');
    const type = command.readUInt16LE(4);
    const makes = type === COMMAND.subvolume || type === COMMAND.snapshot;
    if (makes !== (this.uuid === '')) throw invalid('it does not make one subvolume');
    if (makes) this.#makes(command, type);
    else if (type === COMMAND.clone) this.#clones(command);
    else if (type === COMMAND.end) this.isComplete = true;
  }

  #makes(command: Buffer, type: number): void {
    this.uuid = attribute(command, ATTRIBUTE.uuid).toString('hex');
    if ((type === COMMAND.snapshot) !== (this.#base !== undefined)) {
      throw invalid(this.#base ? 'it does not build on a snapshot' : 'it builds on a snapshot that is not here');
    }
    if (type === COMMAND.snapshot) this.#rename(command);
  }

  #clones(command: Buffer): void {
    if (attribute(command, ATTRIBUTE.cloneUuid).toString('hex') !== this.uuid) this.#rename(command);
  }

  #rename(command: Buffer): void {
    const uuid = attribute(command, ATTRIBUTE.cloneUuid);
    if (!this.#base || uuid.toString('hex') !== this.#base.guid) throw invalid('it builds on another snapshot');
    uuid.write(this.#base.localUuid, 'hex');
    command.writeUInt32LE(0, 6);
    command.writeUInt32LE(crc32c(command), 6);
  }
}

/** Attributes: type, length, value. Those that are looked for come before the one without a length of format 2. */
function attribute(command: Buffer, wanted: number): Buffer {
  for (let at = COMMAND_BYTES; at + 4 <= command.length; ) {
    const value = at + 4;
    const length = command.readUInt16LE(at + 2);
    if (command.readUInt16LE(at) === wanted) {
      if (length !== UUID_BYTES || value + length > command.length) break;
      return command.subarray(value, value + length);
    }
    at = value + length;
  }
  throw invalid('a command of it is damaged');
}

const TABLE = Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value >>> 0;
});

/** As the kernel computes it here: begun with 0, not inverted. */
function crc32c(bytes: Buffer): number {
  let sum = 0;
  for (const byte of bytes) sum = (sum >>> 8) ^ (TABLE[(sum ^ byte) & 255] ?? 0);
  return sum >>> 0;
}

function invalid(why: string): AppError {
  return new AppError('invalid', `The stream is not one of btrfs send: ${why}`);
}
