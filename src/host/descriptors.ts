// Pipes and terminals: what a process in a container has as its standard streams, and our ends of them as streams.
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { closeSync } from 'node:fs';
import { pendingBytes, pipe } from './kernel-descriptors.ts';

/** Our end as a stream, and the other end as a descriptor that somebody else is going to open. */
export interface PipeEnd {
  readonly stream: Duplex;
  /** The stream's own descriptor. */
  readonly fd: number;
  readonly other: number;
}

interface PipeHandle {
  open(fd: number): number | undefined;
}
type PipeConstructor = new (type: number) => PipeHandle;

/** Node's handle type for sockets and pipes: 0 is a plain one. */
const PLAIN = 0;

/** What the process reads; ended by ending the stream. */
export function pipeTo(): PipeEnd {
  const { reader, writer } = pipe();
  return { stream: new Socket({ fd: writer, readable: false, writable: true }), fd: writer, other: reader };
}

/** What the process writes. */
export function pipeFrom(): PipeEnd {
  const { reader, writer } = pipe();
  return { stream: new Socket({ fd: reader, readable: true, writable: false }), fd: reader, other: writer };
}

/**
 * The master of a terminal as a stream. Node's own stream for terminals blocks the whole process in a write that the terminal does
 * not take yet; a master is like a pipe, for which Node waits as it should, so the handle is one of pipes.
 */
export function terminalStream(master: number): Duplex {
  const { reader, writer } = pipe();
  closeSync(writer);
  const probe = new Socket({ fd: reader, readable: true, writable: false });
  const { _handle: model } = probe as unknown as { readonly _handle: PipeHandle };
  const handle = new (model.constructor as unknown as PipeConstructor)(PLAIN);
  probe.destroy();
  handle.open(master);
  return new Socket({ handle, readable: true, writable: true } as object);
}

const SETTLE_MS = 30;

/**
 * For a stream whose process has ended: ends it as soon as nothing more is in it. Without this, a program that went into the
 * background with the stream in its hands would keep everybody waiting. `fd` is the stream's own.
 */
export function endWhenDrained(stream: Duplex, fd: number): void {
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    clearTimeout(timer);
    if (stream.destroyed || stream.isPaused() || stream.readableLength > 0 || pendingBytes(fd) > 0) return;
    // A terminal's data may still be on its way through the kernel: it counts as empty when it is so for a while.
    timer = setTimeout(() => {
      if (stream.isPaused() || stream.readableLength > 0 || pendingBytes(fd) > 0) return;
      stream.destroy();
    }, SETTLE_MS);
  };
  stream.on('data', look);
  stream.on('resume', look);
  stream.once('close', () => clearTimeout(timer));
  look();
}
