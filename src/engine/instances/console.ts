// Sitting at the console of an instance (lxd-engine-contract section 2.3): an operation with the console's bytes on one websocket.
import type { RuntimeDriver, TerminalSize } from '#drivers/runtime/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import { OperationSockets } from '../operations/operation-sockets.ts';
import { drain, feed } from '../operations/socket-streams.ts';
import type { OperationHandle } from '../types.ts';
import { instanceResources, requireRunning } from './exec.ts';
import { takeControl } from './exec-control.ts';
import type { InstanceInfo } from './instances.ts';
import type { Supervisor } from './supervisor.ts';

const SOCKETS = ['0', 'control'] as const;
/** What LXD sends last: the shell of who sat there prints its prompt on a line of its own. */
const FAREWELL = Buffer.from('\n\r');

export interface ConsoleRequest {
  readonly size?: TerminalSize;
  /** Ends the session of whoever is there. */
  readonly force: boolean;
}

export interface ConsoleParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly supervisor: Supervisor;
}

interface Session {
  readonly sockets: OperationSockets<(typeof SOCKETS)[number]>;
  /** Aborts when somebody else takes over. */
  readonly over: AbortController;
}

export class InstanceConsole {
  readonly #parts: ConsoleParts;
  /** By instance: there is one terminal, and two who type into it are one too many. */
  readonly #sessions = new Map<number, Session>();

  constructor(parts: ConsoleParts) {
    this.#parts = parts;
  }

  /** Starts the operation. AppError 'invalid' when the instance does not run, or somebody has its console. */
  start(info: InstanceInfo, request: ConsoleRequest): string {
    const { context } = this.#parts;
    const { record } = info;
    requireRunning(info);
    const former = this.#sessions.get(record.id);
    if (former && !request.force) {
      throw new AppError('invalid', 'This console is already connected. Force is required to take it over.');
    }
    former?.over.abort(new AppError('conflict', 'The console was taken over by another client'));
    const session: Session = { sockets: new OperationSockets(SOCKETS), over: new AbortController() };
    this.#sessions.set(record.id, session);
    const source = `/1.0/instances/${record.name}`;
    const { project } = record;
    context.events.lifecycle({ action: 'instance-console', source, project, context: { type: 'console' } });
    const { fds, connect } = session.sockets;
    const resources = instanceResources(record.name);
    const spec = { class: 'websocket', description: 'Showing console', project, resources } as const;
    return context.operations.start({ ...spec, metadata: { fds }, connect }, async (operation) => {
      try {
        await this.#run(info, { request, session, operation });
      } finally {
        if (this.#sessions.get(record.id) === session) this.#sessions.delete(record.id);
      }
    });
  }

  async #run({ record }: InstanceInfo, { request, session, operation }: Run): Promise<void> {
    const { runtime, supervisor } = this.#parts;
    const { sockets, over } = session;
    const signal = AbortSignal.any([operation.signal, over.signal]);
    try {
      await sockets.connected(SOCKETS, signal);
      const life = supervisor.life(record.id);
      if (!life) throw new AppError('invalid', 'Instance is not running');
      const console = await runtime.openConsole(life.container, signal);
      const close = (): void => console.close();
      signal.addEventListener('abort', close, { once: true });
      if (signal.aborted) close();
      if (request.size) console.resize(request.size);
      const control = takeControl(sockets.socket('control'), { resize: (size) => console.resize(size), end: close });
      const socket = await sockets.socket('0');
      socket.on('closing', close);
      socket.on('close', close);
      feed(socket, console.input, () => undefined);
      await drain(console.output, socket, FAREWELL);
      control.over();
      signal.removeEventListener('abort', close);
      close();
      sockets.close();
      signal.throwIfAborted();
    } catch (error) {
      sockets.close({ now: true });
      throw error;
    }
  }
}

interface Run {
  readonly request: ConsoleRequest;
  readonly session: Session;
  readonly operation: OperationHandle;
}
