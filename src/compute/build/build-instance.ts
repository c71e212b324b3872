// build_and_run_instance from the outside: its turn, its attempt, and what follows from how that ended (section 5.2).
import { limited } from '#src/lib/wait.ts';
import { createComputeTask } from '#src/nova/compute-task.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { recordFault } from '../faults.ts';
import { cachedVifs } from '../network/info-cache.ts';
import { portsOfUser, readWishes } from '../network/request.ts';
import type { OperationTools } from '../operation-tools.ts';
import { wrapped, XTEF } from '../rpc/wrappers.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';
import { BuildAttempt, failureOf } from './attempt.ts';
import { type BuildFailure, tracebackOf } from './failure.ts';
import type { BuildRequest } from './request.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

type Result = 'active' | 'failed' | 'failed_by_policy' | 'rescheduled' | 'rescheduled_by_policy';

export class InstanceBuilder {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;

  constructor(services: ComputeServices, tools: OperationTools) {
    this.#services = services;
    this.#tools = tools;
  }

  /** Returns at once; the build runs detached. */
  start(context: RequestContext, request: BuildRequest): void {
    const uuid = request.instance.get('uuid');
    const { locks } = this.#services;
    this.#tools.builds.start(uuid, (signal) =>
      locks.run(uuid, () => this.#tools.builds.turn(() => this.#run(context, request, signal))),
    );
  }

  async #run(context: RequestContext, request: BuildRequest, signal: AbortSignal): Promise<void> {
    const { instance } = request;
    let result: Result = 'failed';
    try {
      const invocation = { method: '_do_build_and_run_instance', context, instance };
      await wrapped(this.#services, invocation, XTEF, async () => {
        result = await this.#build(context, request, signal);
      });
    } catch (error) {
      // Nova may take it for being built as ever
      this.#services.underWay.leaveTask(instance.get('uuid'));
      throw error;
    } finally {
      await this.#settle(instance, result);
    }
  }

  /** R4: an instance that is not built here must not be charged to this host. */
  async #settle(instance: NovaObject<'Instance'>, result: Result): Promise<void> {
    const { tracker, log } = this.#services;
    if (result === 'failed' || result === 'failed_by_policy') {
      await this.#deleteAllocation(instance).catch((error: unknown) => {
        log.error('cannot delete the allocation of a failed build', { instance, error });
      });
    }
    if (result === 'active') tracker.buildSucceeded();
    else if (result === 'failed' || result === 'rescheduled') tracker.buildFailed();
  }

  async #deleteAllocation(instance: NovaObject<'Instance'>): Promise<void> {
    await this.#services.placement.deleteAllocations(instance.get('uuid'), limited(UNDO_LIMIT_MS));
  }

  async #build(context: RequestContext, request: BuildRequest, signal: AbortSignal): Promise<Result> {
    const { conductor, log } = this.#services;
    const { instance } = request;
    const uuid = instance.get('uuid');
    const fields = { vm_state: VM_STATES.building, task_state: null };
    const startedAt = performance.now();
    const attempt = new BuildAttempt(this.#services, this.#tools, { context, request, signal });
    attempt.prepare();
    try {
      await transition({ conductor, context }, instance, fields, {
        expectedTaskState: [TASK_STATES.scheduling, null],
      });
    } catch (error) {
      if (!isNova(error, 'InstanceNotFound', 'UnexpectedTaskStateError')) throw error;
      log.info('instance is not to be built any more', { instance: uuid, reason: error.message });
      return 'failed';
    }
    try {
      signal.throwIfAborted();
      await attempt.run();
      log.info('instance built', { instance: uuid, ms: Math.round(performance.now() - startedAt) });
      return 'active';
    } catch (error) {
      return await this.#conclude(context, request, failureOf(error, uuid));
    }
  }

  async #conclude(context: RequestContext, request: BuildRequest, failure: BuildFailure): Promise<Result> {
    const { log } = this.#services;
    const instance = request.instance.get('uuid');
    if (failure.kind === 'gone') {
      log.info('instance disappeared during its build', { instance });
      await this.#giveBackNetwork(context, request);
      // the deletion gives them back to Cinder
      await this.#services.volumes.disconnectInstance(instance, limited(UNDO_LIMIT_MS));
      return 'failed';
    }
    log.error('build failed', { instance, outcome: failure.kind, error: failure.error });
    if (failure.kind === 'abort') return await this.#abort(context, request, failure.error);
    const retry = request.filterProperties['retry'];
    if (typeof retry !== 'object' || retry === null) {
      await this.#abort(context, request, failure.error, failure.reason);
      return failure.isByPolicy ? 'failed_by_policy' : 'failed';
    }
    await this.#reschedule(context, request, { ...failure, retry });
    return failure.isByPolicy ? 'rescheduled_by_policy' : 'rescheduled';
  }

  /** R2 */
  async #abort(context: RequestContext, request: BuildRequest, error: unknown, message?: string): Promise<Result> {
    const { instance } = request;
    await this.#giveBackNetwork(context, request);
    await this.#giveBackVolumes(context, request, { deletes: true });
    const options = message === undefined ? {} : { message };
    await recordFault(this.#services, { context, instanceUuid: instance.get('uuid'), error }, options);
    this.#detach(instance);
    instance.set('vm_state', VM_STATES.error).set('task_state', null);
    await this.#saveUnlessGone(context, instance);
    return 'failed';
  }

  /** R1: the allocation goes before the conductor claims on the next host. */
  async #reschedule(
    context: RequestContext,
    request: BuildRequest,
    { retry, error, reason }: { readonly retry: object; readonly error: unknown; readonly reason: string },
  ): Promise<void> {
    const { instance } = request;
    await this.#giveBackNetwork(context, request);
    // the conductor reserves them anew for the next host
    await this.#giveBackVolumes(context, request, { deletes: false });
    this.#detach(instance);
    instance.set('task_state', TASK_STATES.scheduling);
    if (!(await this.#saveUnlessGone(context, instance))) return;
    await this.#deleteAllocation(instance);
    const retryOfNext = { ...retry, exc: tracebackOf(error), exc_reason: reason };
    await createComputeTask(this.#services.rpc).buildInstances(context, {
      ...request,
      filterProperties: { ...request.filterProperties, retry: retryOfNext },
    });
  }

  /** False when the instance has been deleted meanwhile: then there is nothing left to do for it. */
  async #saveUnlessGone(context: RequestContext, instance: NovaObject<'Instance'>): Promise<boolean> {
    try {
      await this.#services.conductor.save(context, instance);
      return true;
    } catch (error) {
      if (!isNova(error, 'InstanceNotFound')) throw error;
      return false;
    }
  }

  #detach(instance: NovaObject<'Instance'>): void {
    instance
      .set('host', null)
      .set('node', null)
      .set('compute_id', null)
      .set('launched_on', null)
      .set('availability_zone', null);
  }

  /** What cannot be given back is logged, and goes when the instance is deleted. */
  async #giveBackVolumes(
    context: RequestContext,
    { instance, blockDevices }: BuildRequest,
    options: { readonly deletes: boolean },
  ): Promise<void> {
    const { log } = this.#services;
    const { volumes } = this.#tools;
    await volumes.giveBack(context, blockDevices, options, limited(UNDO_LIMIT_MS)).catch((error: unknown) => {
      log.error('cannot give back the volumes of a failed build', { instance: instance.get('uuid'), error });
    });
  }

  /** Interfaces and ports of the failed build; what cannot be given back is logged and does not change the outcome. */
  async #giveBackNetwork(context: RequestContext, request: BuildRequest): Promise<void> {
    const { conductor, log } = this.#services;
    const { instance } = request;
    const wishes = readWishes(request.requestedNetworks);
    if (wishes.isNone) return;
    try {
      await this.#tools.plugger.unplug(cachedVifs(instance));
      const options = {
        userPorts: portsOfUser(wishes),
        unplug: (vifs: readonly Vif[]) => this.#tools.plugger.unplug(vifs),
        signal: limited(UNDO_LIMIT_MS),
      };
      await this.#tools.networks.deallocate(context.elevated(), instance, options);
      const metadata = instance.find('system_metadata') ?? {};
      instance.set('system_metadata', { ...metadata, network_allocated: 'False' });
      await conductor.save(context, instance);
    } catch (error) {
      if (isNova(error, 'InstanceNotFound', 'InstanceInfoCacheNotFound')) return;
      log.error('cannot give back the network of a failed build', { instance: instance.get('uuid'), error });
    }
  }
}
