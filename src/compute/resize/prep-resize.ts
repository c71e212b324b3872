// The first step of a resize (section 5.7, prep_resize): is it possible here, the claim, and the word to the source, which
// may be this host as well. The callers hold the instance's lock.
import { asError, messageOf } from '#src/lib/errors.ts';
import { createComputeTask } from '#src/nova/compute-task.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova, novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES } from '#src/nova/states.ts';
import { tracebackOf } from '../build/failure.ts';
import { checkGroupPolicy } from '../build/group-policy.ts';
import { flavorComplaint } from '../build/refusals.ts';
import { groupHint } from '../build/request.ts';
import { recordFault } from '../faults.ts';
import type { ComputeServices } from '../types.ts';
import { findNode } from '../records.ts';
import { castStep } from './cast-step.ts';
import { dropClaim, type Move, orError, Refusal, takeBackAllocation } from './failing.ts';
import { wantsPins } from '../resources/pinning.ts';
import { bootsFromVolume } from './volume-move.ts';

type Plain = Readonly<Record<string, unknown>>;

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
      notifications.moment(context, instance, { name: 'exists', phase: 'once' });
      notifications.moment(context, instance, { ...moment, phase: 'start' });
      try {
        await this.#claim(context, request);
      } catch (error) {
        await takeBackAllocation(this.#services, request);
        if (!(await this.#tryElsewhere(context, request, error))) throw error;
      }
      notifications.moment(context, instance, { ...moment, phase: 'end', extra });
    });
  }

  async #claim(context: RequestContext, request: PrepRequest): Promise<void> {
    const { config, conductor, tracker, virt, rpc } = this.#services;
    const { instance, migration, flavor } = request;
    const source = await this.#source(context, request);
    const isSame = source === config.host && flavor.get('id') === instance.get('flavor').get('id');
    if (isSame && !virt.info.capabilities.has('supports_migrate_to_same_host')) {
      const params = { instance_id: instance.get('uuid'), host: config.host };
      throw new Refusal(novaException('UnableToMigrateToSelf', params));
    }
    await refuseSmallerDisk(this.#services, context, { instance, flavor });
    if (!virt.canBootFromVolume && (await bootsFromVolume(this.#services, context, instance))) {
      throw new Refusal(
        novaException('MigrationPreCheckError', { reason: 'Booting from a volume is not supported on this host.' }),
      );
    }
    if (wantsPins(instance, flavor) || wantsPins(instance, instance.get('flavor'))) {
      throw new Refusal(novaException('ResizeError', { reason: 'Servers with dedicated CPUs cannot be moved.' }));
    }
    const complaint = flavorComplaint(flavor, virt);
    if (complaint) throw new Refusal(novaException('ResizeError', { reason: complaint.message }));
    const metadata = { ...instance.get('system_metadata'), old_vm_state: instance.get('vm_state') };
    instance.set('new_flavor', flavor).set('system_metadata', metadata);
    await conductor.save(context, instance);
    await tracker.resizeClaim(context, instance, { migration, flavor });
    try {
      await castStep({ rpc, host: source }, context, 'resize_instance', {
        instance,
        image: request.image,
        migration,
        flavor,
        clean_shutdown: request.cleanShutdown,
        request_spec: request.requestSpec,
      });
    } catch (error) {
      await dropClaim(this.#services, context, instance);
      throw error;
    }
  }

  /** The host that has the guest. Another one must run the same kind of guests, and no server group may forbid the move. */
  async #source(context: RequestContext, request: PrepRequest): Promise<string> {
    const { config, virt, conductor } = this.#services;
    const { instance } = request;
    const host = instance.get('host');
    if (host === null) throw novaException('MigrationError', { reason: 'the instance has no source host' });
    if (host === config.host) return host;
    const node = await findNode({ conductor, context: context.elevated() }, host, instance.get('node') ?? '');
    const type = node?.get('hypervisor_type');
    if (type !== virt.info.hypervisorType) {
      const reason = `${host} runs instances of another kind (${type ?? 'unknown'})`;
      throw new Refusal(novaException('MigrationPreCheckError', { reason }));
    }
    const hint = config.build.disableGroupPolicyCheckUpcall ? null : groupHint(request);
    if (hint !== null) {
      await checkGroupPolicy(this.#services, context, instance, hint).catch((error: unknown) => {
        throw isNova(error, 'GroupAffinityViolation') ? new Refusal(asError(error)) : error;
      });
    }
    return host;
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

/** As libvirt's driver does: files would have nowhere to go. A root on a volume is not the flavor's. */
export async function refuseSmallerDisk(
  services: Pick<ComputeServices, 'conductor'>,
  context: RequestContext,
  { instance, flavor }: { readonly instance: NovaObject<'Instance'>; readonly flavor: NovaObject<'Flavor'> },
): Promise<void> {
  const present = instance.get('flavor');
  const isRootSmaller = flavor.get('root_gb') < present.get('root_gb');
  const isSmaller =
    flavor.get('ephemeral_gb') < present.get('ephemeral_gb') ||
    (isRootSmaller && !(await bootsFromVolume(services, context, instance)));
  if (isSmaller) throw new Refusal(novaException('ResizeError', { reason: 'Unable to resize disk down.' }));
}
