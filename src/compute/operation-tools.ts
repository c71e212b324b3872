// What the operations share beside the services: the network of instances, their interfaces, events and builds.
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { createSchedulerClient } from '#src/nova/scheduler.ts';
import { BuildQueue } from './build/build-queue.ts';
import { SerialConsoles } from './console/serial-consoles.ts';
import { EventInbox } from './events/event-inbox.ts';
import { InstanceNetworks } from './network/instance-networks.ts';
import { PortRights } from './network/port-rights.ts';
import { Plugger } from './network/plug.ts';
import type { ComputeServices } from './types.ts';
import { InstanceVolumes } from './volumes/instance-volumes.ts';

export interface OperationTools {
  readonly inbox: EventInbox;
  readonly networks: InstanceNetworks;
  readonly portRights: PortRights;
  readonly plugger: Plugger;
  readonly volumes: InstanceVolumes;
  readonly builds: BuildQueue;
  readonly consoles: SerialConsoles;
  /** Tells the schedulers of a new or changed instance; a failure is no failure of the operation. */
  announce(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  /** Tells the schedulers that the instance is gone. */
  renounce(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
}

export function createOperationTools(services: ComputeServices): OperationTools {
  const { config, log, rpc } = services;
  const portRights = new PortRights();
  const scheduler = createSchedulerClient(rpc);
  const tell = async (what: string, cast: () => Promise<void>): Promise<void> => {
    if (!config.periodic.trackInstanceChanges) return;
    await cast().catch((error: unknown) => log.warn('cannot tell the schedulers', { what, error }));
  };
  return {
    inbox: new EventInbox(),
    networks: new InstanceNetworks(services, portRights),
    portRights,
    plugger: new Plugger(services),
    volumes: new InstanceVolumes(services),
    consoles: new SerialConsoles(services),
    builds: new BuildQueue(config.build.maxConcurrentBuilds, log),
    announce: (context, instance) =>
      tell('update_instance_info', () => scheduler.updateInstanceInfo(context, config.host, [instance])),
    renounce: (context, instance) =>
      tell('delete_instance_info', () => scheduler.deleteInstanceInfo(context, config.host, instance.get('uuid'))),
  };
}
