// Serial consoles (section 5.13): users reach them through nova-serialproxy, which connects to a port of this machine. Each
// instance has a port of its own while it has valid tokens: the access paths that would let all share one port are not
// usable with stock proxies (docs/decisions).
import { createServer, type Server } from 'node:net';
import { AppError } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import { POWER_STATES } from '#src/nova/states.ts';
import type { ComputeServices } from '../types.ts';
import { ConsolePort } from './console-port.ts';

type Instance = NovaObject<'Instance'>;
type Services = Pick<ComputeServices, 'config' | 'conductor' | 'virt' | 'log'>;

const TYPE = 'serial';
const BACKLOG = 16;

/** The answer that nova-api passes on; `access_url` is for the user. */
export interface ConsoleAccess {
  readonly host: string;
  readonly port: number;
  readonly internal_access_path: null;
  readonly token: string;
  readonly access_url: string;
}

export class SerialConsoles {
  readonly #services: Services;
  /** By instance uuid; those being opened too. */
  readonly #ports = new Map<string, Promise<ConsolePort>>();
  /** The number that is tried next: one that was in use just now is the last to be used again. */
  #next: number;

  constructor(services: Services) {
    this.#services = services;
    this.#next = services.config.console.serial.firstPort;
  }

  /**
   * get_serial_console: opens the instance's port for the life of a token. Nova's ConsoleTypeUnavailable when [serial_console]
   * is not enabled, ConsoleTypeInvalid for another type, InstanceNotFound, InstanceNotReady when it does not run,
   * SocketPortRangeExhaustedException.
   */
  async access(
    context: RequestContext,
    instance: Instance,
    type: string | null,
    signal: AbortSignal,
  ): Promise<ConsoleAccess> {
    const { config, conductor } = this.#services;
    const { serial, tokenTtlMs } = config.console;
    if (!serial.enabled) throw novaException('ConsoleTypeUnavailable', { console_type: type ?? TYPE });
    if (type !== TYPE) throw novaException('ConsoleTypeInvalid', { console_type: type ?? '' });
    await this.#requireRunning(instance, signal);
    const uuid = instance.get('uuid');
    const port = await this.#portOf(uuid);
    port.keep(tokenTtlMs);
    const host = serial.proxyClientAddress;
    const fields = { console_type: TYPE, host, port: port.number, internal_access_path: null, instance_uuid: uuid };
    const auth = createObject('ConsoleAuthToken', { ...fields, access_url_base: serial.baseUrl });
    const args = [tokenTtlMs / 1000];
    const token = await conductor.objectMethod(context, auth, { method: 'authorize', args });
    if (typeof token !== 'string') throw new AppError('internal', 'the conductor returned no console token');
    return {
      host,
      port: port.number,
      internal_access_path: null,
      token,
      access_url: `${serial.baseUrl}?token=${token}`,
    };
  }

  /** validate_console_port: whether the port (a number as text) is the instance's. Yes lets one connection in. */
  async validate(uuid: string, port: string): Promise<boolean> {
    const own = await this.#ports.get(uuid);
    if (own === undefined || String(own.number) !== port) return false;
    own.admit();
    return true;
  }

  /** The instance is gone from here; who is at its console is sent away. */
  async forget(uuid: string): Promise<void> {
    const port = await this.#ports.get(uuid)?.catch(() => undefined);
    await port?.close();
  }

  async close(): Promise<void> {
    await Promise.all([...this.#ports.keys()].map((uuid) => this.forget(uuid)));
  }

  async #requireRunning(instance: Instance, signal: AbortSignal): Promise<void> {
    const uuid = instance.get('uuid');
    const state = await this.#services.virt.powerState(uuid, signal);
    if (state === POWER_STATES.nostate) throw novaException('InstanceNotFound', { instance_id: uuid });
    if (state !== POWER_STATES.running) throw novaException('InstanceNotReady', { instance_id: uuid });
  }

  #portOf(uuid: string): Promise<ConsolePort> {
    const present = this.#ports.get(uuid);
    if (present) return present;
    const { virt, log } = this.#services;
    const onClose = (): void => void this.#ports.delete(uuid);
    const opened = this.#listen().then(
      ({ server, number }) => new ConsolePort(server, number, { uuid, virt, log, onClose }),
    );
    this.#ports.set(uuid, opened);
    opened.catch(onClose);
    return opened;
  }

  async #listen(): Promise<{ readonly server: Server; readonly number: number }> {
    const { firstPort, endPort, proxyClientAddress } = this.#services.config.console.serial;
    for (let tried = firstPort; tried < endPort; tried += 1) {
      const number = this.#next;
      this.#next = number + 1 < endPort ? number + 1 : firstPort;
      const server = await listenOn(proxyClientAddress, number);
      if (server) return { server, number };
    }
    throw novaException('SocketPortRangeExhaustedException', { host: proxyClientAddress });
  }
}

/** Undefined when the port is in use. */
async function listenOn(host: string, port: number): Promise<Server | undefined> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<Server | undefined>();
  server.once('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EADDRINUSE') return resolve(undefined);
    reject(new AppError('unavailable', `consoles cannot listen on ${host}: ${error.message}`, { cause: error }));
  });
  server.listen({ host, port, backlog: BACKLOG }, () => {
    server.removeAllListeners('error');
    resolve(server);
  });
  return await promise;
}
