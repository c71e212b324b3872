// Client of liblxc's command socket (abstract unix socket of each container's monitor): asks without forking a tool.
import { connect, type Socket } from 'node:net';
import { sendCredentials } from '#src/host/peer-credentials.ts';
import { AppError } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';
import type { RuntimeState } from '../driver.ts';

/** lxc_cmd_t of liblxc; the numbers are its wire format and have not changed since 2.0. */
const COMMAND = { stop: 2, getState: 3, getInitPid: 4, addStateClient: 10 } as const;
type Command = keyof typeof COMMAND;

/** lxc_state_t, by number. */
const STATES: readonly RuntimeState[] = [
  'stopped',
  'starting',
  'running',
  'stopping',
  'aborting',
  'freezing',
  'frozen',
  'thawed',
];
const RUNNING = STATES.indexOf('running');
const MAX_STATE = STATES.length;

/** struct lxc_cmd_req and lxc_cmd_rsp on 64-bit machines: two ints and a pointer. */
const HEADER_BYTES = 16;
/** sun_path less the leading NUL and liblxc's closing one. */
const MAX_NAME_BYTES = 106;
const ANSWER_LIMIT_MS = 5_000;
/** Together some two seconds. */
const ATTEMPTS = 20;
const RETRY_MS = 10;
const MAX_RETRY_MS = 150;
/** -EPERM: the monitor does not know who asks. No answer to the question. */
const REFUSED = -1;

/** The socket's address as Node takes it: with a leading NUL. Too long ones are hashed as liblxc does. */
export function commandSocketPath(containersPath: string, name: string): string {
  const plain = `${containersPath}/${name}/command`;
  if (Buffer.byteLength(plain) < MAX_NAME_BYTES) return `\0${plain}`;
  return `\0lxc/${fnv1a64(`${containersPath}/${name}`)}/command`;
}

function fnv1a64(text: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, '0');
}

/** undefined: nobody listens, the container does not run. */
export async function askState(path: string, signal: AbortSignal): Promise<RuntimeState | undefined> {
  const answer = await ask(path, 'getState', signal);
  return answer && STATES[answer.value];
}

/** undefined: the container does not run. */
export async function askInitPid(path: string, signal: AbortSignal): Promise<number | undefined> {
  const answer = await ask(path, 'getInitPid', signal);
  return answer && answer.value > 0 ? answer.value : undefined;
}

/** Has the monitor kill init. Resolves when the request is handed over; liblxc does not answer it. */
export async function sendStop(path: string, signal: AbortSignal): Promise<void> {
  const socket = await open(path, signal);
  if (!socket) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.once('close', () => resolve());
  socket.on('error', () => undefined);
  // The monitor answers only a failure, and otherwise holds the socket until it is gone.
  socket.resume();
  socket.unref();
  socket.write(request('stop'), () => resolve());
  await promise;
}

/**
 * Registers for the end of the container's present life. Resolves with what happened: the monitor reports RUNNING to this kind of
 * client only after a reboot, and closes the socket, after everything is cleaned up, when the container is gone.
 */
export async function awaitExit(path: string, signal: AbortSignal): Promise<'stopped' | 'rebooted'> {
  const socket = await open(path, signal);
  if (!socket) return 'stopped';
  const states = Buffer.alloc(MAX_STATE * 4);
  // 2, not 1: "tell me about RUNNING though it runs now, and keep me over a reboot".
  states.writeInt32LE(2, RUNNING * 4);
  const { promise, resolve, reject } = Promise.withResolvers<'stopped' | 'rebooted'>();
  let received = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk]);
    // refused: that the connection ends then does not mean that the container has ended
    if (received.length >= 4 && received.readInt32LE(0) < 0) {
      reject(new AppError('unavailable', 'The monitor of the container refuses to be watched'));
    }
    if (received.length > HEADER_BYTES) resolve('rebooted');
  });
  socket.once('close', () => resolve('stopped'));
  socket.on('error', () => resolve('stopped'));
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  socket.write(request('addStateClient', states));
  try {
    signal.throwIfAborted();
    return await promise;
  } finally {
    signal.removeEventListener('abort', onAbort);
    socket.destroy();
  }
}

interface Answer {
  readonly error: number;
  /** The pointer field; liblxc puts small answers there. */
  readonly value: number;
}

/** undefined: nobody listens, or the monitor is going away. */
async function ask(path: string, command: Command, signal: AbortSignal): Promise<Answer | undefined> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_LIMIT_MS)]);
  for (let attempt = 1; ; attempt += 1) {
    const socket = await open(path, limit);
    if (!socket) return undefined;
    const header = await readAnswer(socket, command, { limit, signal });
    const answer = header && { error: header.readInt32LE(0), value: header.readInt32LE(8) };
    if (answer && answer.error !== REFUSED) return answer;
    // A monitor that closes without an answer is going away, and soon nobody listens. But one that has too much to do drops a
    // client as well.
    if (attempt === ATTEMPTS) return undefined;
    await sleep(Math.min(RETRY_MS * 2 ** (attempt - 1), MAX_RETRY_MS), limit);
  }
}

async function readAnswer(
  socket: Socket,
  command: Command,
  { limit, signal }: { readonly limit: AbortSignal; readonly signal: AbortSignal },
): Promise<Buffer | undefined> {
  try {
    socket.write(request(command));
    return await readHeader(socket, limit);
  } catch (cause) {
    signal.throwIfAborted();
    throw new AppError('unavailable', `The monitor of the container does not answer (${command})`, { cause });
  } finally {
    socket.destroy();
  }
}

function readHeader(socket: Socket, signal: AbortSignal): Promise<Buffer | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer | undefined>();
  let got = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    got = Buffer.concat([got, chunk]);
    if (got.length >= HEADER_BYTES) resolve(got);
  });
  socket.once('close', () => resolve(undefined));
  socket.on('error', () => resolve(undefined));
  const onAbort = (): void => reject(signal.reason as Error);
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  return promise.finally(() => signal.removeEventListener('abort', onAbort));
}

/** undefined when nobody listens. */
async function open(path: string, signal: AbortSignal): Promise<Socket | undefined> {
  signal.throwIfAborted();
  const socket = connect({ path });
  const { promise, resolve, reject } = Promise.withResolvers<Socket | undefined>();
  // The monitor refuses what comes without credentials, and wants them only a moment after it has accepted.
  socket.once('connect', () => resolve(sendCredentials(socket) ? socket : undefined));
  socket.once('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT' || error.code === 'ECONNRESET') resolve(undefined);
    else reject(error);
  });
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await promise;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** The kernel adds the credentials that liblxc checks. One write: the monitor reads each request in one go. */
function request(command: Command, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeInt32LE(COMMAND[command], 0);
  header.writeInt32LE(data.length, 4);
  return Buffer.concat([header, data]);
}
