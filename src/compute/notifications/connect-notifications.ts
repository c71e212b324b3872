// Notifications as configured: none without a driver, else in the formats wanted (contract section 1.12, appendix B).
import type { Log } from '#src/lib/log.ts';
import type { RpcTransport } from '#src/messaging/types.ts';
import { createConductor } from '#src/nova/conductor.ts';
import type { ComputeConfig } from '../config/config.ts';
import { instanceName } from '../images/instance-name.ts';
import type { InstanceNotifications } from '../types.ts';
import { silentNotifications } from './silent.ts';

export interface ConnectedNotifications {
  readonly notifications: InstanceNotifications;
  /** Waits until what was told has been sent, or the signal aborts. */
  readonly flush: (signal: AbortSignal) => Promise<void>;
}

export async function connectNotifications(
  config: ComputeConfig,
  transport: RpcTransport,
  log: Log,
): Promise<ConnectedNotifications> {
  const { drivers, transportUrl, retry, topics, versionedTopics, format, bdmsInNotifications } =
    config.messaging.notifications;
  if (drivers.every((driver) => driver === 'noop'))
    return { notifications: silentNotifications, flush: async () => {} };
  // most installations have no consumer of notifications, and do without the code
  const [{ createNotificationEmitter }, { imageUrl }] = await Promise.all([
    import('#src/nova/notifications/emitter.ts'),
    import('#src/nova/notifications/image-url.ts'),
  ]);
  const common = { drivers, retry, ...(transportUrl !== undefined && { transportUrl }) };
  const legacy =
    format === 'versioned'
      ? undefined
      : transport.notifier({ ...common, topics, publisherId: `compute.${config.host}` });
  const versioned =
    format === 'unversioned'
      ? undefined
      : transport.notifier({ ...common, topics: versionedTopics, publisherId: `nova-compute:${config.host}` });
  const emitter = createNotificationEmitter({
    log,
    conductor: createConductor(transport.client()),
    ...(legacy && { legacy }),
    ...(versioned && { versioned }),
    includeBlockDevices: bdmsInNotifications,
    auditPeriod: config.messaging.notifications.auditPeriod,
    imageUrl: (context, imageRef) => imageUrl(context, imageRef, config.glance),
    instanceName: (instance) => instanceName(instance, config.build.instanceNameTemplate),
  });
  const flush = async (signal: AbortSignal): Promise<void> => {
    await emitter.settled();
    await Promise.all([legacy?.flush(signal), versioned?.flush(signal)]);
  };
  return { notifications: emitter, flush };
}
