// external_instance_event: what Neutron (and Cinder, Cyborg) report about instances, through nova-api (section 5.14).
import { kindOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { ComputeServices } from '../types.ts';
import { forgetInterface } from '../guest/device-metadata.ts';

type Instance = NovaObject<'Instance'>;
type Event = NovaObject<'InstanceExternalEvent'>;
type ExtendVolume = (context: RequestContext, instance: Instance, volumeId: string) => Promise<void>;
type Handler = (context: RequestContext, instance: Instance, event: Event, signal: AbortSignal) => Promise<void>;

export class ExternalEvents {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #extendVolume: ExtendVolume;
  /** Refreshes that wait for the end of a build: instance and port. */
  readonly #postponed = new Set<string>();
  readonly #handlers: Readonly<Record<string, Handler>> = {
    'network-changed': (...args) => this.#networkChanged(...args),
    'network-vif-deleted': (...args) => this.#vifDeleted(...args),
    'volume-extended': async (context, instance, event) => {
      const volumeId = event.find('tag') ?? null;
      if (volumeId !== null) await this.#extendVolume(context, instance, volumeId);
    },
    'power-update': (_context, instance, event) => this.#ignore(instance, event, 'a container has no power of its own'),
  };

  constructor(services: ComputeServices, tools: OperationTools, extendVolume: ExtendVolume) {
    this.#services = services;
    this.#tools = tools;
    this.#extendVolume = extendVolume;
  }

  /** Events of different instances are independent; what fails for one is logged, and is no failure of the others. */
  async process(
    context: RequestContext,
    { instances, events }: { readonly instances: readonly Instance[]; readonly events: readonly Event[] },
    signal: AbortSignal,
  ): Promise<void> {
    await Promise.all(
      instances.map(async (instance) => {
        const own = events.filter((event) => event.get('instance_uuid') === instance.get('uuid'));
        // what is only delivered comes first: an action that it lets go on may be what another event waits for
        const isHandled = (event: Event): boolean => this.#handlers[event.get('name')] !== undefined;
        const ordered = [...own.filter((event) => !isHandled(event)), ...own.filter(isHandled)];
        for (const event of ordered) await this.#process(context, instance, event, signal);
      }),
    );
  }

  async #process(context: RequestContext, instance: Instance, event: Event, signal: AbortSignal): Promise<void> {
    const name = event.get('name');
    const handler = this.#handlers[name];
    if (handler === undefined) {
      this.#deliver(instance, event);
      return;
    }
    try {
      await handler(context, instance, event, signal);
    } catch (error) {
      const fields = { event: name, tag: event.find('tag') ?? null, instance: instance.get('uuid') };
      if (isNova(error, 'InstanceNotFound', 'InstanceInfoCacheNotFound')) {
        this.#services.log.debug('event of an instance that is gone', fields);
      } else {
        this.#services.log.error('cannot process an external event', { ...fields, error });
      }
    }
  }

  #deliver(instance: Instance, event: Event): void {
    const uuid = instance.get('uuid');
    const [name, tag, status] = [event.get('name'), event.find('tag') ?? null, event.find('status') ?? 'completed'];
    if (this.#tools.inbox.deliver(uuid, { name, tag, status }) || this.#tools.inbox.isWatched(uuid)) return;
    const state = { vmState: instance.find('vm_state'), taskState: instance.find('task_state') };
    this.#services.log.debug('nobody waits for this event', { event: name, tag, status, instance: uuid, ...state });
  }

  /**
   * While the instance is being built (or plugged again) the refresh waits: Neutron reports our own binding of the port, the
   * build reads the port itself, and reading it twice would cost the build's time. One that waits sees later changes as well.
   */
  async #networkChanged(context: RequestContext, instance: Instance, event: Event, signal: AbortSignal): Promise<void> {
    const uuid = instance.get('uuid');
    const portId = event.find('tag') ?? null;
    const key = `${uuid}/${portId ?? ''}`;
    if (this.#postponed.has(key)) return;
    this.#postponed.add(key);
    try {
      await this.#tools.inbox.unwatched(uuid);
    } finally {
      this.#postponed.delete(key);
    }
    await this.#tools.networks.refresh(context, instance, { portId, signal });
  }

  /** The interface is taken out of the guest and off the host. */
  async #vifDeleted(context: RequestContext, instance: Instance, event: Event, signal: AbortSignal): Promise<void> {
    const portId = event.find('tag') ?? null;
    if (portId === null) return;
    const vif = await this.#tools.networks.forgetPort(context, instance, portId);
    if (vif === undefined) return;
    const { virt, log } = this.#services;
    await virt.detachNic(instance.get('uuid'), vif.address ?? '', signal).catch((error: unknown) => {
      if (kindOf(error) !== 'not_found')
        log.warn('cannot detach the interface of a deleted port', { port: portId, error });
    });
    await this.#tools.plugger.unplug([vif]);
    const { conductor } = this.#services;
    if (await forgetInterface({ conductor, context }, instance, vif.address ?? '')) {
      await conductor.save(context, instance);
    }
  }

  async #ignore(instance: Instance, event: Event, reason: string): Promise<void> {
    const name = event.get('name');
    this.#services.log.info('external event ignored', { event: name, instance: instance.get('uuid'), reason });
  }
}
