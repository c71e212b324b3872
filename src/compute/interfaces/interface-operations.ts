// attach_interface and detach_interface: a network interface more or less, also while the guest runs (section 5.12). The
// callers hold the instance's lock.
import { kindOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import { type Vif, vifToWire } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { forgetInterface, interfaceMetadata, tellOfDevice } from '../guest/device-metadata.ts';
import type { NetworkWish } from '../network/request.ts';
import { SinglePort } from '../network/single-port.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { ComputeServices } from '../types.ts';

type Instance = NovaObject<'Instance'>;

export class InterfaceOperations {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #ports: SinglePort;

  constructor(services: ComputeServices, tools: OperationTools) {
    this.#services = services;
    this.#tools = tools;
    this.#ports = new SinglePort(services, tools.portRights);
  }

  /** The VIF as Nova's API reads it. Nothing of it is left after a failure. */
  async attach(context: RequestContext, instance: Instance, wish: NetworkWish, signal: AbortSignal): Promise<unknown> {
    const { notifications, conductor, virt } = this.#services;
    const canTag = virt.info.capabilities.has('supports_tagged_attach_interface');
    if (wish.tag !== null && !canTag) throw novaException('NetworkInterfaceTaggedAttachNotSupported', {});
    const name = 'interface_attach';
    notifications.moment(context, instance, { name, phase: 'start' });
    try {
      const vif = await this.#ports.add(context, instance, wish, signal);
      await this.#plug(context, instance, vif, signal);
      if (wish.tag !== null) {
        const device = interfaceMetadata(vif.address ?? '', wish.tag);
        await tellOfDevice({ conductor, context }, instance, device);
      }
      await conductor.save(context, instance);
      notifications.moment(context, instance, { name, phase: 'end' });
      return vifToWire(vif);
    } catch (error) {
      notifications.moment(context, instance, { name, phase: 'error', error });
      throw error;
    }
  }

  async #plug(context: RequestContext, instance: Instance, vif: Vif, signal: AbortSignal): Promise<void> {
    const { virt, log } = this.#services;
    const uuid = instance.get('uuid');
    try {
      const [nic] = await this.#tools.plugger.plug(instance, [vif], signal);
      if (nic !== undefined) await virt.attachNic(uuid, nic, signal);
    } catch (cause) {
      log.error('cannot attach an interface', { instance: uuid, port: vif.id, error: cause });
      await this.#tools.plugger.unplug([vif]);
      await this.#ports.remove(context, instance, vif).catch((error: unknown) => {
        log.warn('cannot give back the port of a failed attachment', { port: vif.id, error });
      });
      throw novaException('InterfaceAttachFailed', { instance_uuid: uuid }, { cause });
    }
  }

  async detach(context: RequestContext, instance: Instance, portId: string, signal: AbortSignal): Promise<void> {
    const { notifications, conductor } = this.#services;
    const vif = await this.#ports.find(context, instance, portId);
    if (vif === undefined) throw novaException('PortNotFound', { port_id: portId });
    const name = 'interface_detach';
    notifications.moment(context, instance, { name, phase: 'start' });
    try {
      await this.#takeOut(instance, vif, signal);
      await this.#tools.plugger.unplug([vif]);
      await this.#ports.remove(context, instance, vif);
      await forgetInterface({ conductor, context }, instance, vif.address ?? '');
      await conductor.save(context, instance);
    } catch (error) {
      notifications.moment(context, instance, { name, phase: 'error', error });
      throw error;
    }
    notifications.moment(context, instance, { name, phase: 'end' });
  }

  /** A guest that is not there has no interface. */
  async #takeOut(instance: Instance, { id, address }: Vif, signal: AbortSignal): Promise<void> {
    const { virt, log } = this.#services;
    const uuid = instance.get('uuid');
    try {
      await virt.detachNic(uuid, address ?? '', signal);
    } catch (cause) {
      if (kindOf(cause) === 'not_found') return;
      log.error('cannot detach an interface', { instance: uuid, port: id, error: cause });
      throw novaException('InterfaceDetachFailed', { instance_uuid: uuid }, { cause });
    }
  }
}
