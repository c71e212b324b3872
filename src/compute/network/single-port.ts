// One port more, or one less, for an instance that exists (section 5.12, allocate and deallocate of section 8.3).
import { messageOf } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { expectObject } from '#src/nova/objects/object.ts';
import type { ComputeServices } from '../types.ts';
import { buildVif, readSurroundings } from './build-vifs.ts';
import { chooseInterfaces } from './choose-networks.ts';
import { serviceCredentials } from './credentials.ts';
import { releasePorts } from './deallocate.ts';
import { cachedVifs, reloadCache, saveVifs } from './info-cache.ts';
import { cacheLock } from './instance-networks.ts';
import { bindPort, createMissingPorts, type MadePort, type PortMaker, registerPort } from './make-ports.ts';
import type { PortRights } from './port-rights.ts';
import type { NetworkWish } from './request.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

type Instance = NovaObject<'Instance'>;

export class SinglePort {
  readonly #services: ComputeServices;
  readonly #rights: PortRights;

  constructor(services: ComputeServices, rights: PortRights) {
    this.#services = services;
    this.#rights = rights;
  }

  /** A port as wished, bound to this host and in Nova's cache, behind the others. Nothing is left of it after a failure. */
  async add(context: RequestContext, instance: Instance, wish: NetworkWish, signal: AbortSignal): Promise<Vif> {
    const { neutron, conductor, log, config } = this.#services;
    const rights = this.#rights;
    const maker: PortMaker = { neutron, conductor, log, host: config.host, rights, context, instance, signal };
    const hasDns = (await neutron.extensions(serviceCredentials(context), signal)).has('dns-integration');
    const made = await this.#make(maker, wish, hasDns);
    try {
      const bound = await bindPort(maker, made, hasDns);
      await registerPort(maker, made, hasDns);
      const around = await readSurroundings(neutron, context, { ports: [bound] }, signal);
      const preserved = new Set(made.chosen.port === null ? [] : [bound.id]);
      const vif = buildVif(bound, around, { ovsBridge: config.neutron.ovsBridge, preserved });
      await this.#changeCache(context, instance, (vifs) => [...vifs.filter(({ id }) => id !== vif.id), vif]);
      return vif;
    } catch (error) {
      await this.#giveBack(context, instance, { id: made.port.id, isUsers: made.chosen.port !== null }).catch(
        (cause: unknown) => {
          log.warn('cannot give back the port of a failed attachment', {
            port: made.port.id,
            reason: messageOf(cause),
          });
        },
      );
      throw error;
    }
  }

  async #make(maker: PortMaker, wish: NetworkWish, hasDns: boolean): Promise<MadePort> {
    const isFree = wish.portId === null && wish.networkId === null;
    const wishes = { isAuto: false, isNone: false, list: isFree ? [] : [wish] };
    const chosen = await chooseInterfaces(maker, wishes);
    const [only] = chosen;
    const projectId = maker.instance.get('project_id') ?? '';
    if (only === undefined) throw novaException('InterfaceAttachFailedNoNetwork', { project_id: projectId });
    const interfaces = [isFree ? { ...only, address: wish.address } : only];
    const [made] = await createMissingPorts(maker, interfaces, { securityGroups: [], hasDns });
    if (made === undefined) throw novaException('InterfaceAttachFailed', { instance_uuid: maker.instance.get('uuid') });
    return made;
  }

  /** The VIF of the port in the newest cache; undefined when the instance has none. */
  async find(context: RequestContext, instance: Instance, portId: string): Promise<Vif | undefined> {
    await reloadCache(this.#services.conductor, context, instance);
    return cachedVifs(instance).find(({ id }) => id === portId);
  }

  /** Ours is deleted, the user's unbound; the cache forgets it. */
  async remove(context: RequestContext, instance: Instance, vif: Vif): Promise<void> {
    await this.#giveBack(context, instance, { id: vif.id, isUsers: vif.preserveOnDelete });
    await this.#changeCache(context, instance, (vifs) => vifs.filter(({ id }) => id !== vif.id));
  }

  async #giveBack(
    context: RequestContext,
    instance: Instance,
    { id, isUsers }: { readonly id: string; readonly isUsers: boolean },
  ): Promise<void> {
    const { neutron, log } = this.#services;
    const asking = { neutron, context, instance, log, signal: limited(UNDO_LIMIT_MS) };
    await releasePorts(asking, isUsers ? { keep: [id], remove: [] } : { keep: [], remove: [id] });
    await this.#unregister(context, id);
  }

  async #unregister(context: RequestContext, portId: string): Promise<void> {
    const { conductor } = this.#services;
    const found = await conductor.classMethod(context, {
      object: 'VirtualInterface',
      method: 'get_by_uuid',
      args: [portId],
    });
    if (found === null) return;
    await conductor.objectMethod(context, expectObject(found, 'VirtualInterface'), { method: 'destroy' });
  }

  async #changeCache(
    context: RequestContext,
    instance: Instance,
    change: (vifs: readonly Vif[]) => readonly Vif[],
  ): Promise<void> {
    const { conductor, locks } = this.#services;
    await locks.run(cacheLock(instance), async () => {
      await reloadCache(conductor, context, instance);
      await saveVifs(conductor, context, instance, change(cachedVifs(instance)));
    });
  }
}
