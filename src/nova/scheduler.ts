// What the scheduler is told about the instances of this host (nova-compute-contract section 6.3).
import type { RpcClient, WireArgs } from '#src/messaging/types.ts';
import type { RequestContext } from './context.ts';
import { type NovaObject, createObject } from './objects/object.ts';

/** Fanout casts to every scheduler, with an elevated context. Sent only when `track_instance_changes` is on. */
export interface SchedulerClient {
  /** New or changed instances of the host. */
  updateInstanceInfo(
    context: RequestContext,
    host: string,
    instances: readonly NovaObject<'Instance'>[],
  ): Promise<void>;
  deleteInstanceInfo(context: RequestContext, host: string, instanceUuid: string): Promise<void>;
  /** The complete list of uuids, for schedulers that missed something. */
  syncInstanceInfo(context: RequestContext, host: string, instanceUuids: readonly string[]): Promise<void>;
}

const TARGET = { topic: 'scheduler', fanout: true, version: '4.2' } as const;

export function createSchedulerClient(rpc: RpcClient): SchedulerClient {
  const cast = (context: RequestContext, method: string, args: WireArgs): Promise<void> =>
    rpc.cast({ target: TARGET, method, args, context: context.elevated().toWire() });
  return {
    updateInstanceInfo(context, host, instances) {
      const list = createObject('InstanceList', { objects: instances });
      return cast(context, 'update_instance_info', { host_name: host, instance_info: list.toPrimitive() });
    },
    deleteInstanceInfo: (context, host, instanceUuid) =>
      cast(context, 'delete_instance_info', { host_name: host, instance_uuid: instanceUuid }),
    syncInstanceInfo: (context, host, instanceUuids) =>
      cast(context, 'sync_instance_info', { host_name: host, instance_uuids: [...instanceUuids] }),
  };
}
