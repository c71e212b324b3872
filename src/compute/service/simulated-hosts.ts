// Many simulated hosts in one process, for load tests of a control plane ([fake] hosts).
import { join } from 'node:path';
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import type { RpcTransport } from '#src/messaging/types.ts';
import type { ComputeConfig } from '../config/config.ts';
import { inParallel } from '../in-parallel.ts';
import { type ComputeParts, createComputeService } from './compute-service.ts';

/** So many start at once: each asks the conductor and Placement a dozen things. */
const STARTS_AT_ONCE = 8;

export interface SimulationParts {
  /** Of all hosts; closed when the last has stopped. */
  readonly transport: RpcTransport;
  /** What one host has for itself, beside the transport and its log. */
  readonly partsOf: (config: ComputeConfig, transport: RpcTransport, log: Log) => Promise<ComputeParts>;
}

/** The hosts share the broker's connections for what they send; each consumes its own queues, and has a state of its own. */
export function createSimulatedHosts(
  config: ComputeConfig,
  log: Log,
  { transport, partsOf }: SimulationParts,
): Service {
  const shared = withoutClose(transport);
  const started: Service[] = [];
  return {
    name: 'simulated hosts',
    async start(signal) {
      await inParallel(hostConfigs(config), STARTS_AT_ONCE, async (own) => {
        const service = createComputeService(own, await partsOf(own, shared, logOf(own.host, log)));
        started.push(service);
        await service.start(signal);
      });
      log.info('simulated hosts are up', { hosts: started.length });
    },
    async stop(signal) {
      await Promise.all(
        started.map((service) =>
          service.stop(signal).catch((error: unknown) => {
            log.warn('simulated host did not stop cleanly', { error });
          }),
        ),
      );
      await transport.close();
    },
  };
}

/** `<host>-001` and so on, each with its own folder below state_path. */
export function hostConfigs(config: ComputeConfig): readonly ComputeConfig[] {
  const { hosts } = config.fake;
  const digits = Math.max(3, String(hosts).length);
  return Array.from({ length: hosts }, (_none, index) => {
    const host = `${config.host}-${String(index + 1).padStart(digits, '0')}`;
    // a compute_id beside the configuration would be that of every host
    return { ...config, host, statePath: join(config.statePath, host), configFolders: [] };
  });
}

function withoutClose(transport: RpcTransport): RpcTransport {
  return {
    client: (options) => transport.client(options),
    server: (options) => transport.server(options),
    notifier: (options) => transport.notifier(options),
    close: async () => {},
  };
}

function logOf(host: string, log: Log): Log {
  return {
    debug: (message, fields) => log.debug(message, { ...fields, host }),
    info: (message, fields) => log.info(message, { ...fields, host }),
    warn: (message, fields) => log.warn(message, { ...fields, host }),
    error: (message, fields) => log.error(message, { ...fields, host }),
  };
}
