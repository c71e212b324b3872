// Payloads of notifications against those that Nova's own code (Zed) made of the same instance, context and block devices.
import { readFileSync } from 'node:fs';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { silentLog } from '#src/lib/log.ts';
import type { InstanceNotifications } from '#src/compute/types.ts';
import type { Notification, Notifier } from '#src/messaging/types.ts';
import { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import {
  type MomentOf,
  type NotificationEmitter,
  type NotificationOptions,
  createNotificationEmitter,
} from '#src/nova/notifications/emitter.ts';
import { imageUrl } from '#src/nova/notifications/image-url.ts';
import { type NovaObject, createObject, expectObject, fromPrimitive } from '#src/nova/objects/object.ts';
import type { Conductor } from '#src/nova/types.ts';

const golden = JSON.parse(readFileSync(new URL('../../fixtures/notifications/zed.json', import.meta.url), 'utf8'));
const context = RequestContext.fromWire(golden.context);
const newInstance = () => expectObject(fromPrimitive(golden.instance), 'Instance');

class Sink implements Notifier {
  readonly sent: Notification[] = [];
  notify(notification: Notification): void {
    this.sent.push(notification);
  }
  async flush(): Promise<void> {}
}

const conductorOf = (classMethod: Conductor['classMethod']): Conductor => ({
  classMethod,
  objectMethod: () => Promise.reject(new Error('not expected')),
  save: () => Promise.reject(new Error('not expected')),
});
const noConductor = conductorOf(() => Promise.reject(new Error('nothing is to be read')));

function emitter(options: Partial<NotificationOptions> = {}) {
  const legacy = new Sink();
  const versioned = new Sink();
  const emit = createNotificationEmitter({
    log: silentLog,
    conductor: noConductor,
    legacy,
    versioned,
    includeBlockDevices: false,
    auditPeriod: 'month',
    imageUrl,
    instanceName: (instance) => `instance-${instance.get('id').toString(16).padStart(8, '0')}`,
    ...options,
  });
  return { emit, legacy: legacy.sent, versioned: versioned.sent };
}

/** Zed's shape: the later versions differ by `shares` and their number. */
function asZed(payload: any): any {
  const { shares, ...data } = payload['nova_object.data'];
  expect(shares).toEqual([]);
  const [major, minor] = payload['nova_object.version'].split('.');
  return { ...payload, 'nova_object.version': `${major}.${minor - 1}`, 'nova_object.data': data };
}

const sentBy = (notification: Notification | undefined) => ({
  priority: notification?.priority,
  event_type: notification?.eventType,
  payload: notification?.payload,
});

describe('a prepared resize', () => {
  it('is told of with the new flavor', () => {
    const { emit, legacy, versioned } = emitter();
    const newFlavor = newInstance().get('flavor');

    emit.moment(context, newInstance(), { name: 'resize_prep', phase: 'start', newFlavor });

    expect(legacy[0]?.eventType).toBe('compute.instance.resize.prep.start');
    expect(versioned[0]).toMatchObject({
      eventType: 'instance.resize_prep.start',
      payload: {
        'nova_object.name': 'InstanceActionResizePrepPayload',
        'nova_object.version': '1.4',
        'nova_object.data': { new_flavor: { 'nova_object.data': { name: newFlavor.get('name') } } },
      },
    });
  });
});

describe('a volume', () => {
  it('is told of once in the old form, when it is there, and in each phase in the versioned one', () => {
    const { emit, legacy, versioned } = emitter();
    const moment = { name: 'volume_attach', volumeId: 'v', extra: { volume_id: 'v' } } as const;

    emit.moment(context, newInstance(), { ...moment, phase: 'start' });
    emit.moment(context, newInstance(), { ...moment, phase: 'end' });

    expect(legacy.map(({ eventType }) => eventType)).toEqual(['compute.instance.volume.attach']);
    expect(legacy[0]?.payload).toMatchObject({ volume_id: 'v' });
    expect(versioned.map(({ eventType }) => eventType)).toEqual([
      'instance.volume_attach.start',
      'instance.volume_attach.end',
    ]);
    expect(versioned[0]?.payload).toMatchObject({
      'nova_object.name': 'InstanceActionVolumePayload',
      'nova_object.version': '1.7',
      'nova_object.data': { volume_id: 'v' },
    });
  });

  it('that is swapped is told of with both', () => {
    const { emit, legacy, versioned } = emitter();

    emit.moment(context, newInstance(), { name: 'volume_swap', phase: 'start', volumeId: 'old', newVolumeId: 'new' });

    expect(legacy).toEqual([]);
    expect(versioned[0]?.payload).toMatchObject({
      'nova_object.name': 'InstanceActionVolumeSwapPayload',
      'nova_object.version': '1.9',
      'nova_object.data': { old_volume_id: 'old', new_volume_id: 'new' },
    });
  });
});

describe('a snapshot', () => {
  it('is told of with the image that it becomes, in the versioned form only', () => {
    const { emit, legacy, versioned } = emitter();

    emit.moment(context, newInstance(), { name: 'snapshot', phase: 'start', snapshotImageId: 'snap' });

    expect(legacy[0]?.eventType).toBe('compute.instance.snapshot.start');
    expect(legacy[0]?.payload).not.toHaveProperty('snapshot_image_id');
    expect(versioned[0]).toMatchObject({
      eventType: 'instance.snapshot.start',
      payload: {
        'nova_object.name': 'InstanceActionSnapshotPayload',
        'nova_object.version': '1.10',
        'nova_object.data': { snapshot_image_id: 'snap', uuid: newInstance().get('uuid') },
      },
    });
  });

  it('a rebuild names the certificates that its image was to be verified with', async () => {
    const { emit, versioned } = emitter();

    emit.moment(context, newInstance(), { name: 'rebuild', phase: 'end' });
    await emit.settled();

    expect(versioned[0]).toMatchObject({
      eventType: 'instance.rebuild.end',
      payload: {
        'nova_object.name': 'InstanceActionRebuildPayload',
        'nova_object.version': '1.10',
        'nova_object.data': { trusted_image_certificates: null, uuid: newInstance().get('uuid') },
      },
    });
  });
});

describe('legacy notifications are Nova’s own', () => {
  it.each([
    ['legacy power_on.start', { name: 'power_on', phase: 'start' }],
    ['legacy create.end', { name: 'create', phase: 'end', extra: { message: 'Success' } }],
  ] satisfies [string, MomentOf][])('%s', (name, moment) => {
    const { emit, legacy } = emitter();

    emit.moment(context, newInstance(), moment);

    expect(legacy.map(sentBy)).toEqual(golden.sent[name]);
  });

  it('errors carry text, message and code', () => {
    const { emit, legacy, versioned } = emitter();
    const error = novaException('PortNotFound', { port_id: 'p' });
    const [expected] = golden.sent['legacy reboot.error'];

    emit.moment(context, newInstance(), { name: 'reboot', phase: 'error', error });

    const text = 'Port p could not be found';
    expect(legacy.map(sentBy)).toEqual([
      { ...expected, payload: { ...expected.payload, exception: text, message: text } },
    ]);
    expect(versioned[0]).toMatchObject({ eventType: 'instance.reboot.error', priority: 'ERROR' });
    const payload: any = versioned[0]?.payload;
    expect(payload['nova_object.data'].fault['nova_object.data']).toMatchObject({
      exception: 'PortNotFound',
      exception_message: text,
      module_name: 'nova.exception',
      traceback: expect.stringContaining('notifications.test.ts'),
    });
  });
});

describe('versioned notifications are Nova’s own', () => {
  it('of an action', () => {
    const { emit, versioned } = emitter();
    const [expected] = golden.sent['versioned power_off.start'];

    emit.moment(context, newInstance(), { name: 'power_off', phase: 'start' });

    expect(versioned).toHaveLength(1);
    const payload = asZed(versioned[0]?.payload);
    expect(payload['nova_object.data'].block_devices).toBeNull();
    payload['nova_object.data'].block_devices = [];
    expect({ ...sentBy(versioned[0]), payload }).toEqual(expected);
  });

  it('of a creation, with block devices when they are wanted', async () => {
    const asked: unknown[] = [];
    const conductor = conductorOf(async (_context, call) => {
      asked.push(call);
      return createObject('BlockDeviceMappingList', {
        objects: golden.sent.bdms.map((bdm: unknown) => fromPrimitive(bdm)),
      });
    });
    const { emit, versioned } = emitter({ conductor, includeBlockDevices: true });
    const [expected] = golden.sent['versioned create.end'];

    emit.moment(context, newInstance(), { name: 'create', phase: 'end' });
    await emit.settled();

    expect({ ...sentBy(versioned[0]), payload: asZed(versioned[0]?.payload) }).toEqual(expected);
    expect(asked).toMatchObject([{ object: 'BlockDeviceMappingList', method: 'get_by_instance_uuid' }]);
  });
});

describe('that an instance exists', () => {
  it('is told once, of the period under way, with the image that it had', () => {
    const { emit, legacy, versioned } = emitter();
    const [{ payload: action }] = golden.sent['versioned power_off.start'];
    const [{ payload: plain }] = golden.sent['legacy power_on.start'];

    emit.moment(context, newInstance(), { name: 'exists', phase: 'once', imageId: 'before' });

    const [old] = legacy as any[];
    expect(old).toMatchObject({ eventType: 'compute.instance.exists', priority: 'INFO' });
    const { audit_period_beginning: begin, audit_period_ending: end, image_ref_url: url, ...rest } = old.payload;
    expect([begin, end]).toEqual([
      expect.stringMatching(/^\d{4}-\d\d-01 00:00:00$/),
      expect.stringMatching(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/),
    ]);
    expect(url).toMatch(/before$/);
    const { image_ref_url: _url, ...expected } = plain;
    expect(rest).toEqual(expected);
    const [fresh] = versioned as any[];
    expect(fresh).toMatchObject({ eventType: 'instance.exists', priority: 'INFO' });
    const { 'nova_object.data': data, ...label } = fresh.payload;
    expect(label).toMatchObject({ 'nova_object.name': 'InstanceExistsPayload', 'nova_object.version': '2.1' });
    const { audit_period: period, shares: _shares, ...told } = data;
    expect(period).toMatchObject({ 'nova_object.name': 'AuditPeriodPayload', 'nova_object.version': '1.0' });
    const { fault: _fault, ...known } = action['nova_object.data'];
    expect(told).toEqual({ ...known, block_devices: null });
  });
});

describe('what an instance lacks', () => {
  const sparse = (): NovaObject<'Instance'> => {
    const full = newInstance();
    const { 'nova_object.data': data, ...rest } = full.toPrimitive();
    const { flavor: _flavor, tags: _tags, ...less } = data;
    return expectObject(fromPrimitive({ ...rest, 'nova_object.data': less }), 'Instance');
  };

  it('is read first, deleted or not, and the order of its notifications stays', async () => {
    const asked: any[] = [];
    const conductor = conductorOf(async (asking, { kwargs }) => {
      asked.push([asking.readDeleted, kwargs?.['expected_attrs']]);
      return newInstance();
    });
    const { emit, legacy, versioned } = emitter({ conductor });
    const instance = sparse();

    emit.moment(context, instance, { name: 'create', phase: 'start' });
    instance.set('vm_state', 'changed meanwhile');
    emit.moment(context, newInstance(), { name: 'create', phase: 'end', extra: { message: 'Success' } });
    expect(legacy).toEqual([]);
    await emit.settled();

    expect(asked).toEqual([['yes', ['flavor', 'tags']]]);
    expect(legacy.map(({ eventType }) => eventType)).toEqual([
      'compute.instance.create.start',
      'compute.instance.create.end',
    ]);
    expect(versioned.map(({ eventType }) => eventType)).toEqual(['instance.create.start', 'instance.create.end']);
    expect(legacy[0]?.payload).toMatchObject({ instance_type: 'm1.tiny', state: 'active' });
    expect(instance.has('flavor')).toBe(false);
  });

  it('and cannot be read costs the notification, nothing else', async () => {
    const warnings: unknown[] = [];
    const log = { ...silentLog, warn: (message: string) => void warnings.push(message) };
    const { emit, legacy } = emitter({ log });

    emit.moment(context, sparse(), { name: 'delete', phase: 'end' });
    emit.moment(context, newInstance(), { name: 'delete', phase: 'end' });
    await emit.settled();

    expect(warnings).toEqual(['a notification could not be made']);
    expect(legacy).toHaveLength(1);
  });
});

it('a failed method is told without its arguments', () => {
  const { emit, legacy, versioned } = emitter();

  emit.failure(context, { method: 'start_instance', instanceUuid: 'u', error: new TypeError('broken') });

  expect(legacy.map(sentBy)).toEqual([
    {
      priority: 'ERROR',
      event_type: 'start_instance',
      payload: { exception: 'broken', args: { instance: { uuid: 'u' } } },
    },
  ]);
  expect(versioned[0]).toMatchObject({
    eventType: 'compute.exception',
    priority: 'ERROR',
    payload: { 'nova_object.name': 'ExceptionPayload', 'nova_object.data': { exception: 'TypeError' } },
  });
});

it('no notification carries a secret of the context', () => {
  const { emit, legacy, versioned } = emitter();

  emit.moment(context, newInstance(), { name: 'pause', phase: 'start' });

  expect(golden.context.auth_token).toBeTruthy();
  for (const { context: wire } of [...legacy, ...versioned]) {
    expect(wire).toMatchObject({ auth_token: null, request_id: golden.context.request_id });
    expect(wire).not.toHaveProperty('service_catalog');
  }
});

it('without notifiers nothing is made', () => {
  const emit = createNotificationEmitter({
    log: silentLog,
    conductor: noConductor,
    includeBlockDevices: true,
    auditPeriod: 'month',
    imageUrl: () => expect.unreachable(),
    instanceName: () => expect.unreachable(),
  });

  emit.moment(context, newInstance(), { name: 'create', phase: 'end' });
  emit.failure(context, { method: 'm', error: new Error('x') });
});

it('the compute service can use it', () => {
  expectTypeOf<NotificationEmitter>().toExtend<InstanceNotifications>();
});

it('an image is at its endpoint in the catalogue, or just its id', () => {
  expect(imageUrl(context, 'i')).toBe('http://127.0.0.1:9292/images/i');
  expect(imageUrl(context, 'i', { endpointOverride: 'http://glance/v2/' })).toBe('http://glance/v2/images/i');
  expect(imageUrl(context, 'i', { region: 'elsewhere' })).toBe('i');
  expect(imageUrl(RequestContext.admin(), 'i')).toBe('i');
  expect(imageUrl(RequestContext.admin(), null)).toBe('');
});
