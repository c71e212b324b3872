// Tells the consumers of notifications what happens to instances (nova-compute-contract section 1.12, appendix B).
import type { Log } from '#src/lib/log.ts';
import type { Notification, Notifier } from '#src/messaging/types.ts';
import type { RequestContext } from '../context.ts';
import { type NovaObject, expectObject, fromPrimitive } from '../objects/object.ts';
import { expectList } from '../objects/wire.ts';
import type { Conductor } from '../types.ts';
import { type AuditPeriod, currentPeriod, periodText } from './audit-period.ts';
import { legacyFailure, legacyPayload } from './legacy.ts';
import { type Moment, type MomentNames, type Phase, moments } from './moments.ts';
import {
  type ActionDetails,
  actionPayload,
  createPayload,
  existsPayload,
  exceptionPayload,
  rebuildPayload,
  rescuePayload,
  resizePrepPayload,
  snapshotPayload,
  volumePayload,
  volumeSwapPayload,
} from './versioned.ts';

type Instance = NovaObject<'Instance'>;

export interface NotificationOptions {
  readonly log: Log;
  /** Reads what a payload needs and the instance at hand has not. */
  readonly conductor: Conductor;
  /** Publisher `compute.<host>`; absent when `notification_format` is `versioned` or there is no driver. */
  readonly legacy?: Notifier;
  /** Publisher `nova-compute:<host>`; absent when `notification_format` is `unversioned` or there is no driver. */
  readonly versioned?: Notifier;
  /** `[notifications] bdms_in_notifications`. */
  readonly includeBlockDevices: boolean;
  readonly imageUrl: (context: RequestContext, imageRef: string | null) => string;
  /** `instance_usage_audit_period`. */
  readonly auditPeriod: string;
  /** By instance_name_template. */
  readonly instanceName: (instance: Instance) => string;
}

export interface MomentOf {
  readonly name: Moment;
  readonly phase: Phase;
  readonly error?: unknown;
  /** Additional keys of the legacy payload. */
  readonly extra?: Readonly<Record<string, unknown>>;
  /** Told in the legacy payload in the place of the instance's image. */
  readonly imageId?: string;
  /** Of the versioned payload of a snapshot. */
  readonly snapshotImageId?: string;
  /** Of the versioned payload of a rescue. */
  readonly rescueImageId?: string;
  /** Of the versioned payload of a prepared resize. */
  readonly newFlavor?: NovaObject<'Flavor'>;
  /** Of the versioned payloads of volumes; the old one of two. */
  readonly volumeId?: string;
  readonly newVolumeId?: string;
  /** Of `exists`; absent: the one that is under way. */
  readonly period?: AuditPeriod;
}

export interface FailureOf {
  readonly method: string;
  readonly instanceUuid?: string;
  readonly error: unknown;
}

/** moment() and failure() neither throw nor wait. */
export interface NotificationEmitter {
  moment(context: RequestContext, instance: Instance, moment: MomentOf): void;
  failure(context: RequestContext, failure: FailureOf): void;
  /** Resolves when everything that had to be read first has been handed to the notifiers; before they are flushed. */
  settled(): Promise<void>;
}

const NEEDS = ['flavor', 'metadata', 'system_metadata', 'info_cache'] as const;
const CREATE_NEEDS = [...NEEDS, 'keypairs', 'tags', 'trusted_certs'] as const;
type Need = (typeof CREATE_NEEDS)[number];
const MORE_NEEDS: Partial<Record<MomentNames['payload'], readonly Need[]>> = {
  InstanceCreatePayload: CREATE_NEEDS,
  InstanceActionRebuildPayload: [...NEEDS, 'trusted_certs'],
};

export function createNotificationEmitter(options: NotificationOptions): NotificationEmitter {
  return new Emitter(options);
}

class Emitter implements NotificationEmitter {
  readonly #options: NotificationOptions;
  /** What must be read first, by instance, so that its notifications keep their order. */
  readonly #pending = new Map<string, Promise<void>>();

  constructor(options: NotificationOptions) {
    this.#options = options;
  }

  moment(context: RequestContext, instance: Instance, moment: MomentOf): void {
    if (this.#options.legacy === undefined && this.#options.versioned === undefined) return;
    this.#guarded(instance.find('uuid'), () => {
      const uuid = instance.get('uuid');
      const missing = this.#missing(instance, moments[moment.name]);
      const mustRead = missing.length > 0 || this.#readsBlockDevices();
      if (mustRead || this.#pending.has(uuid)) this.#emitLater(context, snapshotOf(instance), { moment, missing });
      else this.#emit(context, instance, { moment, blockDevices: null });
    });
  }

  failure(context: RequestContext, { method, instanceUuid, error }: FailureOf): void {
    const { legacy, versioned } = this.#options;
    this.#guarded(instanceUuid, () => {
      const common = { context: context.redacted().toWire(), priority: 'ERROR' } as const;
      legacy?.notify({ ...common, eventType: method, payload: legacyFailure(error, instanceUuid) });
      versioned?.notify({ ...common, eventType: 'compute.exception', payload: exceptionPayload(error) });
    });
  }

  async settled(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending.values());
  }

  #missing(instance: Instance, { payload }: MomentNames): readonly Need[] {
    const needs: readonly Need[] = (this.#options.versioned && MORE_NEEDS[payload]) || NEEDS;
    return needs.filter((field) => !instance.has(field));
  }

  #readsBlockDevices(): boolean {
    return this.#options.includeBlockDevices && this.#options.versioned !== undefined;
  }

  #emitLater(
    context: RequestContext,
    instance: Instance,
    { moment, missing }: { readonly moment: MomentOf; readonly missing: readonly Need[] },
  ): void {
    const uuid = instance.get('uuid');
    const work = async (): Promise<void> => {
      const blockDevices = this.#readsBlockDevices() ? await this.#blockDevices(context, uuid) : null;
      if (missing.length > 0) await this.#load(context, instance, missing);
      this.#emit(context, instance, { moment, blockDevices });
    };
    const previous = this.#pending.get(uuid) ?? Promise.resolve();
    const task = previous.then(work).catch((error: unknown) => this.#warn(uuid, error));
    const entry = task.finally(() => {
      if (this.#pending.get(uuid) === entry) this.#pending.delete(uuid);
    });
    this.#pending.set(uuid, entry);
  }

  async #load(context: RequestContext, instance: Instance, missing: readonly Need[]): Promise<void> {
    const stored = expectObject(
      await this.#options.conductor.classMethod(context.withReadDeleted('yes'), {
        object: 'Instance',
        method: 'get_by_uuid',
        kwargs: { uuid: instance.get('uuid'), expected_attrs: missing },
      }),
      'Instance',
    );
    for (const field of missing) {
      const value = stored.find(field);
      if (value !== undefined) instance.load(field, value);
    }
  }

  async #blockDevices(context: RequestContext, uuid: string): Promise<readonly NovaObject<'BlockDeviceMapping'>[]> {
    const list = await this.#options.conductor.classMethod(context.withReadDeleted('yes'), {
      object: 'BlockDeviceMappingList',
      method: 'get_by_instance_uuid',
      args: [uuid],
    });
    return expectList(list, 'BlockDeviceMappingList');
  }

  #emit(
    context: RequestContext,
    instance: Instance,
    of: { readonly moment: MomentOf; readonly blockDevices: readonly NovaObject<'BlockDeviceMapping'>[] | null },
  ): void {
    const { legacy, versioned } = this.#options;
    const { name, phase } = of.moment;
    const oldName = legacyName(name, phase);
    const wire = context.redacted().toWire();
    const send = (notifier: Notifier, rest: Pick<Notification, 'eventType' | 'priority' | 'payload'>): void =>
      notifier.notify({ context: wire, ...rest });
    if (legacy !== undefined && oldName !== null) {
      const priority = phase === 'error' ? 'ERROR' : 'INFO';
      const payload = this.#legacyPayload(context, instance, of.moment);
      send(legacy, { eventType: `compute.instance.${oldName}`, priority, payload });
    }
    if (versioned !== undefined) {
      const priority = of.moment.error === undefined ? 'INFO' : 'ERROR';
      const payload = this.#versionedPayload(context, instance, of);
      send(versioned, { eventType: `instance.${moments[name].versioned}${suffixOf(phase)}`, priority, payload });
    }
  }

  #legacyPayload(context: RequestContext, instance: Instance, moment: MomentOf): unknown {
    const { name, phase, error, extra, imageId, period } = moment;
    const names: MomentNames = moments[name];
    const audit = name === 'exists' ? auditKeys(period ?? this.#period()) : undefined;
    return legacyPayload(instance, {
      imageUrl: this.#options.imageUrl(context, imageId ?? instance.find('image_ref') ?? null),
      withFixedIps: names.fixedIps?.includes(phase) ?? false,
      ...(error === undefined ? {} : { error }),
      ...(extra === undefined && audit === undefined ? {} : { extra: { ...audit, ...extra } }),
    });
  }

  #period(): AuditPeriod {
    return currentPeriod(this.#options.auditPeriod, new Date());
  }

  #versionedPayload(
    context: RequestContext,
    instance: Instance,
    {
      moment,
      blockDevices,
    }: { readonly moment: MomentOf; readonly blockDevices: readonly NovaObject<'BlockDeviceMapping'>[] | null },
  ): unknown {
    const { name, error } = moment;
    const details = { context, blockDevices, ...errorIn(error) };
    const instanceName = (): string => this.#options.instanceName(instance);
    return PAYLOADS[moments[name].payload](instance, {
      moment,
      details,
      instanceName,
      period: () => moment.period ?? this.#period(),
    });
  }

  #guarded(instance: string | undefined, emit: () => void): void {
    try {
      emit();
    } catch (error) {
      this.#warn(instance, error);
    }
  }

  #warn(instance: string | undefined, error: unknown): void {
    this.#options.log.warn('a notification could not be made', { instance, error });
  }
}

/** null: the old form knows nothing of it. */
function legacyName(name: Moment, phase: Phase): string | null {
  const { legacy, isSingle = false }: MomentNames = moments[name];
  if (!isSingle || legacy === null) return legacy && `${legacy}${suffixOf(phase)}`;
  return phase === 'end' ? legacy : null;
}

function suffixOf(phase: Phase): string {
  return phase === 'once' ? '' : `.${phase}`;
}

function errorIn(error: unknown): { readonly error?: unknown } {
  return error === undefined ? {} : { error };
}

function auditKeys({ begin, end }: AuditPeriod): Readonly<Record<string, unknown>> {
  return { audit_period_beginning: periodText(begin), audit_period_ending: periodText(end) };
}

interface PayloadParts {
  readonly moment: MomentOf;
  readonly details: ActionDetails;
  readonly instanceName: () => string;
  readonly period: () => AuditPeriod;
}

const PAYLOADS: Readonly<Record<MomentNames['payload'], (instance: Instance, parts: PayloadParts) => unknown>> = {
  InstanceActionPayload: (instance, { details }) => actionPayload(instance, details),
  InstanceCreatePayload: (instance, { details, instanceName }) => createPayload(instance, instanceName(), details),
  InstanceActionSnapshotPayload: (instance, { moment, details }) =>
    snapshotPayload(instance, moment.snapshotImageId ?? '', details),
  InstanceActionRebuildPayload: (instance, { details }) => rebuildPayload(instance, details),
  InstanceActionRescuePayload: (instance, { moment, details }) =>
    rescuePayload(instance, moment.rescueImageId ?? null, details),
  InstanceExistsPayload: (instance, { details, period }) => existsPayload(instance, period(), details),
  InstanceActionResizePrepPayload: (instance, { moment, details }) =>
    resizePrepPayload(instance, moment.newFlavor ?? null, details),
  InstanceActionVolumePayload: (instance, { moment, details }) =>
    volumePayload(instance, moment.volumeId ?? '', details),
  InstanceActionVolumeSwapPayload: (instance, { moment, details }) =>
    volumeSwapPayload(instance, { old: moment.volumeId ?? '', new: moment.newVolumeId ?? '' }, details),
};

/** The instance as it is now: what was loaded may change before the rest has been read. */
function snapshotOf(instance: Instance): Instance {
  return expectObject(fromPrimitive(instance.toPrimitive()), 'Instance');
}
