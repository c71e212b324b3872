// The first step of a resize (section 5.7, prep_resize): is it possible here, the claim, and the word to the source, which
// is this host as well. The callers hold the instance's lock.
import { messageOf } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import { createComputeTask } from '#src/nova/compute-task.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES } from '#src/nova/states.ts';
import { tracebackOf } from '../build/failure.ts';
import { flavorComplaint } from '../build/refusals.ts';
import { recordFault } from '../faults.ts';
import type { ComputeServices } from '../types.ts';
import { type Move, orError, Refusal, refuseOtherHost } from './failing.ts';
import { castStep } from './cast-step.ts';

type Plain = Readonly<Record<string, unknown>>;

const UNDO_LIMIT_MS = 60_000;

export interface PrepRequest extends Move {
  readonly flavor: NovaObject<'Flavor'>;
  readonly image: Plain;
  readonly requestSpec: NovaObject<'RequestSpec'> | null;
  readonly filterProperties: Plain;
  readonly cleanShutdown: boolean;
  /** The hosts left to try. */
  readonly hostList: readonly NovaObject<'Selection'>[] | null;
}

export class PrepResize {
  readonly #services: ComputeServices;

  constructor(services: ComputeServices) {
    this.#services = services;
  }

  async prepare(context: RequestContext, request: PrepRequest): Promise<void> {
    const { notifications } = this.#services;
    const { instance, flavor } = request;
    const moment = { name: 'resize_prep', newFlavor: flavor } as const;
    const extra = { new_instance_type: flavor.get('name'), new_instance_type_id: flavor.get('id') };
    await orError(this.#services, context, instance, async () => {
      notifications.moment(context, instance, { ...moment, phase: 'start' });
      try {
        await this.#claim(context, request);
      } catch (error) {
        await this.#takeBack(request);
        if (!(await this.#tryElsewhere(context, request, error))) throw error;
      }
      notifications.moment(context, instance, { ...moment, phase: 'end', extra });
    });
  }

  async #claim(context: RequestContext, request: PrepRequest): Promise<void> {
    const { config, conductor, tracker, virt, rpc } = this.#services;
    const { instance, migration, flavor } = request;
    refuseOtherHost(request, config.host);
    const isSame = flavor.get('id') === instance.get('flavor').get('id');
    if (isSame && !virt.info.capabilities.has('supports_migrate_to_same_host')) {
      const params = { instance_id: instance.get('uuid'), host: config.host };
      throw new Refusal(novaException('UnableToMigrateToSelf', params));
    }
    refuseSmallerDisk(instance, flavor);
    const complaint = flavorComplaint(flavor, virt);
    if (complaint) throw new Refusal(novaException('ResizeError', { reason: complaint.message }));
    const metadata = { ...instance.get('system_metadata'), old_vm_state: instance.get('vm_state') };
    instance.set('new_flavor', flavor).set('system_metadata', metadata);
    await conductor.save(context, instance);
    await tracker.resizeClaim(context, instance, { migration, flavor });
    try {
      await castStep({ rpc, host: config.host }, context, 'resize_instance', {
        instance,
        image: request.image,
        migration,
        flavor,
        clean_shutdown: request.cleanShutdown,
        request_spec: request.requestSpec,
      });
    } catch (error) {
      await tracker.keepRoom(instance, null);
      await conductor.objectMethod(context, instance, { method: 'drop_migration_context' });
      throw error;
    }
  }

  /** The conductor had moved the instance's allocation to the migration. */
  async #takeBack({ instance, migration }: Move): Promise<void> {
    const { placement, log } = this.#services;
    const uuid = instance.get('uuid');
    await placement.moveAllocations(migration.get('uuid'), uuid, limited(UNDO_LIMIT_MS)).catch((error: unknown) => {
      log.error('cannot move back the allocation of an instance', { instance: uuid, error });
    });
  }

  /** True: the conductor tries the next host. */
  async #tryElsewhere(context: RequestContext, request: PrepRequest, error: unknown): Promise<boolean> {
    const { conductor, rpc, notifications, log } = this.#services;
    const { instance, filterProperties, hostList } = request;
    const { retry } = filterProperties;
    if (typeof retry !== 'object' || retry === null || !hostList || hostList.length === 0) return false;
    const cause = error instanceof Refusal ? error.cause : error;
    try {
      instance.set('task_state', TASK_STATES.resizePrep);
      await conductor.save(context, instance);
      await createComputeTask(rpc).migrateServer(context, {
        ...request,
        filterProperties: {
          ...filterProperties,
          retry: { ...retry, exc: tracebackOf(cause), exc_reason: messageOf(cause) },
        },
        hostList,
      });
    } catch (failure) {
      log.error('a resize cannot be handed to another host', { instance: instance.get('uuid'), error: failure });
      return false;
    }
    await recordFault(this.#services, { context, instanceUuid: instance.get('uuid'), error: cause });
    notifications.moment(context, instance, { name: 'resize', phase: 'error', error: cause });
    return true;
  }
}

/** As libvirt's driver does: files would have nowhere to go. */
export function refuseSmallerDisk(instance: NovaObject<'Instance'>, flavor: NovaObject<'Flavor'>): void {
  const present = instance.get('flavor');
  const isSmaller =
    flavor.get('root_gb') < present.get('root_gb') || flavor.get('ephemeral_gb') < present.get('ephemeral_gb');
  if (isSmaller) throw new Refusal(novaException('ResizeError', { reason: 'Unable to resize disk down.' }));
}
