// The control connection of a command or console: sizes of its terminal, signals, and the end of it when the client is gone.
import type { WebSocket } from 'ws';
import type { TerminalSize } from '#drivers/runtime/driver.ts';

const MAX_SIZE = 0xffff;
const MAX_SIGNAL = 64;

/** What is controlled. */
export interface Controlled {
  resize(size: TerminalSize): void;
  /** Absent: it takes none. */
  signal?(signal: number): void;
  /** The client is gone. */
  end(): void;
}

export interface Control {
  /** A connection with output is gone: ends it, unless there is a control connection, which has the say then. */
  lost(): void;
  /** It has ended by itself. */
  over(): void;
}

interface Message {
  readonly command?: unknown;
  readonly args?: { readonly width?: unknown; readonly height?: unknown };
  readonly signal?: unknown;
}

/** `connection` may never come: old clients have none. */
export function takeControl(connection: Promise<WebSocket>, target: Controlled): Control {
  let isOver = false;
  let connected = false;
  const end = (): void => {
    if (!isOver) target.end();
  };
  void connection.then((socket) => {
    connected = true;
    socket.on('message', (data: Buffer, isBinary) => {
      if (!isBinary && !isOver) obey(parse(data.toString()), target);
    });
    socket.on('closing', end);
    socket.on('close', end);
    if (socket.readyState > socket.OPEN) end();
    socket.resume();
  });
  return {
    lost: () => {
      if (!connected) end();
    },
    over: () => {
      isOver = true;
    },
  };
}

function parse(text: string): Message {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}

function obey({ command, args, signal }: Message, target: Controlled): void {
  if (command === 'window-resize') {
    const [width, height] = [Number(args?.width), Number(args?.height)];
    if (isSize(width) && isSize(height)) target.resize({ width, height });
  } else if (command === 'signal' && isSignal(signal)) target.signal?.(signal);
}

function isSignal(signal: unknown): signal is number {
  return typeof signal === 'number' && Number.isInteger(signal) && signal > 0 && signal <= MAX_SIGNAL;
}

function isSize(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= MAX_SIZE;
}
