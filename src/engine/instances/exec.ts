// Commands in instances (lxd-engine-contract section 2.2): an operation whose websockets are the command's standard streams.
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { WebSocket } from 'ws';
import type {
  RuntimeCommand,
  RuntimeDriver,
  RuntimeProcess,
  RuntimeStreams,
  TerminalSize,
} from '#drivers/runtime/driver.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import { OperationSockets } from '../operations/operation-sockets.ts';
import { drain, feed, finish } from '../operations/socket-streams.ts';
import type { ConfigMap, OperationHandle } from '../types.ts';
import { type Control, takeControl } from './exec-control.ts';
import { instancePaths } from './instance-paths.ts';
import type { InstanceInfo } from './instances.ts';
import type { Supervisor } from './supervisor.ts';
import type { InstanceTrees } from './trees.ts';

const SIGKILL = 9;

export interface ExecRequest {
  readonly command: readonly [string, ...string[]];
  readonly environment: ConfigMap;
  readonly interactive: boolean;
  readonly size?: TerminalSize;
  readonly waitForWebsocket: boolean;
  readonly recordOutput: boolean;
  readonly uid: number;
  readonly gid: number;
  /** Empty: the default. */
  readonly cwd: string;
}

export interface ExecParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly supervisor: Supervisor;
  readonly trees: InstanceTrees;
}

export class InstanceExec {
  readonly #parts: ExecParts;

  constructor(parts: ExecParts) {
    this.#parts = parts;
  }

  /** Starts the operation. AppError 'invalid' with LXD's text when the instance does not run. */
  async start(info: InstanceInfo, request: ExecRequest): Promise<string> {
    const { context } = this.#parts;
    const { record } = info;
    requireRunning(info);
    await this.#requireDirectory(info, request.cwd);
    const environment = await this.#environment(info, request);
    const job: Job = { info, request: { ...request, environment } };
    const { command, interactive } = request;
    const details = { command, environment, interactive };
    const resources = instanceResources(record.name);
    const base = { description: 'Executing command', project: record.project, resources };
    const source = `/1.0/instances/${record.name}`;
    context.events.lifecycle({ action: 'instance-exec', source, project: record.project, context: { command } });
    if (!request.waitForWebsocket) {
      return context.operations.start({ ...base, class: 'task', metadata: details }, (operation) => {
        return this.#runAlone(job, operation);
      });
    }
    const names = interactive ? (['0', 'control'] as const) : (['0', '1', '2', 'control'] as const);
    const sockets = new OperationSockets<SocketName>(names);
    const spec = { ...base, class: 'websocket', metadata: { ...details, fds: sockets.fds } } as const;
    return context.operations.start({ ...spec, connect: sockets.connect }, (operation) => {
      return this.#runConnected(job, sockets, operation);
    });
  }

  /** liblxc would run the command in "/" instead, and nobody would know. */
  async #requireDirectory(info: InstanceInfo, cwd: string): Promise<void> {
    if (cwd === '') return;
    const kind = await this.#parts.trees.use(info, (tree) =>
      tree.attributes(cwd, { follow: true }).then(
        ({ kind }) => kind,
        // What we may not look at is for the kernel to decide.
        (error: unknown) => (kindOf(error) === 'not_found' ? 'absent' : 'unknown'),
      ),
    );
    if (kind === 'directory' || kind === 'unknown') return;
    const what = kind === 'absent' ? 'does not exist' : 'is not a directory';
    throw new AppError('invalid', `Working directory "${cwd}" ${what} in the instance`);
  }

  async #environment(info: InstanceInfo, { environment, uid }: ExecRequest): Promise<ConfigMap> {
    const configured = Object.entries(info.expanded.config)
      .filter(([key]) => key.startsWith('environment.'))
      .map(([key, value]) => [key.slice('environment.'.length), value] as const);
    const given = { ...Object.fromEntries(configured), ...environment };
    return {
      ...(given['PATH'] === undefined && { PATH: await this.#defaultPath(info) }),
      ...(uid === 0 && { HOME: '/root', USER: 'root' }),
      LANG: 'C.UTF-8',
      ...given,
    };
  }

  async #defaultPath(info: InstanceInfo): Promise<string> {
    const has = await this.#parts.trees.use(info, (tree) => {
      const exists = (path: string) =>
        tree.attributes(path).then(
          () => true,
          () => false,
        );
      return Promise.all([exists('/snap'), exists('/etc/NIXOS')]);
    });
    const [snap, nixos] = has;
    const parts = [DEFAULT_PATH, ...(snap ? ['/snap/bin'] : []), ...(nixos ? ['/run/current-system/sw/bin'] : [])];
    return parts.join(':');
  }

  async #runAlone({ info, request }: Job, operation: OperationHandle): Promise<void> {
    const { record } = info;
    const { logs } = instancePaths(this.#parts.context.paths, record);
    const names = { 1: `exec_${operation.id}.stdout`, 2: `exec_${operation.id}.stderr` } as const;
    if (request.recordOutput) {
      for (const name of Object.values(names)) await (await open(join(logs, name), 'wx', 0o600)).close();
    }
    const files = { stdout: join(logs, names[1]), stderr: join(logs, names[2]) };
    const streams = { kind: 'files', ...(request.recordOutput && files) } as const;
    const process = await this.#attach({ info, request }, streams, operation);
    const code = await ended(process, operation);
    const url = (name: string) => `/1.0/instances/${record.name}/logs/${name}`;
    const output = { 1: url(names[1]), 2: url(names[2]) };
    operation.setMetadata({ return: code, ...(request.recordOutput && { output }) });
  }

  async #runConnected(job: Job, sockets: OperationSockets<SocketName>, operation: OperationHandle): Promise<void> {
    const { interactive, size } = job.request;
    try {
      await sockets.connected(interactive ? ['0', 'control'] : ['0', '1', '2'], operation.signal);
      const streams: RuntimeStreams = interactive ? { kind: 'terminal', ...(size && { size }) } : { kind: 'pipes' };
      const process = await this.#attach(job, streams, operation);
      const control = takeControl(sockets.socket('control'), {
        resize: (wanted) => process.resize(wanted),
        signal: (number) => process.kill(number),
        end: () => process.kill(SIGKILL),
      });
      const pumped = interactive ? onTerminal(process, sockets, control) : onPipes(process, sockets, control);
      const code = await ended(process, operation);
      control.over();
      await pumped;
      sockets.close();
      operation.setMetadata({ return: code });
    } catch (error) {
      sockets.close({ now: true });
      throw error;
    }
  }

  #attach({ info, request }: Job, streams: RuntimeStreams, { signal }: OperationHandle): Promise<RuntimeProcess> {
    const life = this.#parts.supervisor.life(info.record.id);
    if (!life) throw new AppError('invalid', 'Instance is not running');
    const { command: argv, environment, uid, gid, cwd } = request;
    const command: RuntimeCommand = { argv, environment, uid, gid, streams, cwd: cwd === '' ? '/root' : cwd };
    return this.#parts.runtime.attach(life.container, command, signal);
  }
}

type SocketName = '0' | '1' | '2' | 'control';
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

interface Job {
  readonly info: InstanceInfo;
  readonly request: ExecRequest;
}

export function requireRunning({ status }: InstanceInfo): void {
  if (status === 'Stopped') throw new AppError('invalid', 'Instance is not running');
  if (status === 'Frozen') throw new AppError('invalid', 'Instance is frozen');
}

export function instanceResources(name: string): Readonly<Record<string, readonly string[]>> {
  return { containers: [`/1.0/containers/${name}`], instances: [`/1.0/instances/${name}`] };
}

/** The exit code; a cancelled operation kills the process first. */
async function ended(process: RuntimeProcess, { signal }: OperationHandle): Promise<number> {
  const kill = (): void => process.kill(SIGKILL);
  signal.addEventListener('abort', kill, { once: true });
  if (signal.aborted) kill();
  try {
    const code = await process.exited;
    signal.throwIfAborted();
    return code;
  } finally {
    signal.removeEventListener('abort', kill);
  }
}

async function onTerminal(
  { stdin, stdout }: RuntimeProcess,
  sockets: OperationSockets<SocketName>,
  control: Control,
): Promise<void> {
  const socket = await sockets.socket('0');
  if (!stdin || !stdout) return;
  // The end of the client's input is not the end of a terminal.
  feed(socket, stdin, () => undefined);
  socket.on('close', () => control.lost());
  await drain(stdout, socket);
}

async function onPipes(
  { stdin, stdout, stderr }: RuntimeProcess,
  sockets: OperationSockets<SocketName>,
  control: Control,
): Promise<void> {
  const [input, output, errors] = await Promise.all([sockets.socket('0'), sockets.socket('1'), sockets.socket('2')]);
  if (!stdin || !stdout || !stderr) return;
  feed(input, stdin, () => stdin.end());
  input.on('close', () => stdin.end());
  watch(output, control);
  watch(errors, undefined);
  await Promise.all([drain(stdout, output), drain(stderr, errors)]);
  stdin.destroy();
  await finish(input);
}

/** Reads what is not for us, so that the end of the connection is seen. */
function watch(socket: WebSocket, control: Control | undefined): void {
  socket.on('close', () => control?.lost());
  socket.resume();
}
