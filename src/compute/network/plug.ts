// From cached VIFs to interfaces on this host, and the wait for Neutron to have wired them (section 5.2 step 12).
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { limited, sleep } from '#src/lib/wait.ts';
import { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { BoundVif, KnownVif, VifDriver, VifRates } from '#drivers/vif/driver.ts';
import type { SpawnNic } from '#drivers/virt/driver.ts';
import type { EventWatch } from '../events/event-inbox.ts';
import { findInstance, type Instance } from '../records.ts';
import type { ComputeServices } from '../types.ts';
import { vifRates } from './vif-rates.ts';

const UNPLUG_LIMIT_MS = 60_000;
/** Of a wait without an answer; an agent that has much to do takes less. */
const RENEW_AFTER_MS = 60_000;

export interface PlugWait {
  readonly watch: EventWatch;
  /** vif_plugging_timeout; 0: no wait. */
  readonly timeoutMs: number;
  /** vif_plugging_is_fatal: what a missing event means. */
  readonly isFatal: boolean;
}

interface Waiting {
  readonly instance: Instance;
  readonly vif: Vif;
  readonly watch: EventWatch;
}

export class Plugger {
  readonly #drivers: ReadonlyMap<string, VifDriver>;
  readonly #log: Log;
  readonly #conductor: Conductor;

  constructor({ vifs, log, conductor }: Pick<ComputeServices, 'vifs' | 'log' | 'conductor'>) {
    this.#drivers = new Map(vifs.flatMap((driver) => driver.types.map((type) => [type, driver] as const)));
    this.#log = log;
    this.#conductor = conductor;
  }

  /** With the bandwidth of the instance's flavor. All or none: what was plugged here is unplugged again when another one fails. */
  async plug(instance: Instance, vifs: readonly Vif[], signal: AbortSignal): Promise<readonly SpawnNic[]> {
    const flavor = await this.#flavorOf(instance);
    const rates = vifRates(flavor.find('extra_specs') ?? {});
    const targets = vifs.map((vif) => ({ vif, driver: this.#driverOf(vif) }));
    const results = await Promise.allSettled(
      targets.map(({ vif, driver }, index) => driver.plug(boundVif(vif, { instance, rates }), `eth${index}`, signal)),
    );
    const nics = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    const failure = results.find((result) => result.status === 'rejected');
    if (failure === undefined) return nics;
    await this.unplug(vifs);
    throw failure.reason;
  }

  /** Plugs, and waits until Neutron has wired what it calls inactive. */
  async plugAndWait(
    instance: Instance,
    vifs: readonly Vif[],
    wait: PlugWait,
    signal: AbortSignal,
  ): Promise<readonly SpawnNic[]> {
    const nics = await this.plug(instance, vifs, signal);
    await this.waitUntilWired(instance, vifs, wait, signal);
    return nics;
  }

  /**
   * Waits for network-vif-plugged of each VIF that Neutron calls inactive. All are unplugged when that is fatal. Nothing may use
   * their interfaces yet: one that takes long is made anew.
   */
  async waitUntilWired(instance: Instance, vifs: readonly Vif[], wait: PlugWait, signal: AbortSignal): Promise<void> {
    const pending =
      wait.timeoutMs > 0 ? vifs.filter(({ active, vnicType }) => !active && vnicType !== 'remote-managed') : [];
    const deadline = limited(wait.timeoutMs, signal);
    const since = performance.now();
    const results = await Promise.allSettled(
      pending.map((vif) => this.#waitForOne({ instance, vif, watch: wait.watch }, deadline)),
    );
    const failure = results.find((result) => result.status === 'rejected');
    if (pending.length > 0) {
      const ports = pending.map(({ id }) => id);
      this.#log.info('waited for Neutron', { ports, ms: Math.round(performance.now() - since) });
    }
    if (failure === undefined) return;
    signal.throwIfAborted();
    this.#log.warn('Neutron did not report interfaces as plugged', {
      ports: pending.filter((_vif, index) => results[index]?.status === 'rejected').map(({ id }) => id),
      isFatal: wait.isFatal,
      error: failure.reason,
    });
    if (!wait.isFatal) return;
    await this.unplug(vifs);
    throw novaException('VirtualInterfaceCreateException', {}, { cause: failure.reason });
  }

  async #waitForOne(waiting: Waiting, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    const either = AbortSignal.any([signal, over.signal]);
    const plugged = waitForPlugged(waiting.watch, waiting.vif.id, either);
    const renewed = sleep(RENEW_AFTER_MS, either).then(
      () => this.#renew(waiting, signal),
      () => undefined, // the wait is over
    );
    try {
      await Promise.race([plugged, renewed.then(() => plugged)]);
    } finally {
      over.abort();
      await Promise.allSettled([plugged, renewed]);
    }
  }

  /**
   * Neutron can lose the last word on a port: when its two agents are ready at once, each transaction still sees the other's part
   * missing, and the port stays DOWN until an agent reports it again. Neutron's agents do that for an interface that is new.
   */
  async #renew({ instance, vif }: Waiting, signal: AbortSignal): Promise<void> {
    this.#log.warn('Neutron has not reported an interface as plugged; it is made anew', { port: vif.id });
    await this.#driverOf(vif).unplug(knownVif(vif), limited(UNPLUG_LIMIT_MS, signal));
    await this.plug(instance, [vif], signal);
  }

  /** Tries all; what cannot be unplugged is logged, not an error: the container is what must go. */
  async unplug(vifs: readonly Vif[]): Promise<void> {
    await Promise.all(
      vifs.map(async (vif) => {
        const driver = this.#drivers.get(vif.type ?? '');
        if (driver === undefined) return;
        await driver.unplug(knownVif(vif), limited(UNPLUG_LIMIT_MS)).catch((error: unknown) => {
          this.#log.warn('cannot unplug an interface', { port: vif.id, error });
        });
      }),
    );
  }

  /** Not every message has it. */
  async #flavorOf(instance: Instance): Promise<NovaObject<'Flavor'>> {
    const flavor = instance.find('flavor');
    if (flavor) return flavor;
    const asking = { conductor: this.#conductor, context: RequestContext.admin() };
    const found = await findInstance(asking, instance.get('uuid'), ['flavor']);
    if (found) return found.get('flavor');
    throw novaException('InstanceNotFound', { instance_id: instance.get('uuid') });
  }

  #driverOf(vif: Vif): VifDriver {
    const driver = this.#drivers.get(vif.type ?? '');
    if (driver !== undefined && vif.vnicType === 'normal') return driver;
    throw new AppError(
      'unsupported',
      `port ${vif.id} is bound as ${vif.type} (${vif.vnicType}), which no driver serves`,
    );
  }
}

async function waitForPlugged(watch: EventWatch, portId: string, signal: AbortSignal): Promise<void> {
  const { status } = await watch.wait('network-vif-plugged', portId, signal);
  if (status === 'failed') throw new AppError('internal', `Neutron reports that plugging port ${portId} failed`);
}

function boundVif(vif: Vif, { instance, rates }: { instance: Instance; rates: VifRates }): BoundVif {
  return { ...knownVif(vif), instanceUuid: instance.get('uuid'), interfaceId: vif.ovsInterfaceId ?? vif.id, rates };
}

function knownVif(vif: Vif): KnownVif {
  const mtu = vif.network?.meta['mtu'];
  return {
    id: vif.id,
    macAddress: vif.address ?? '',
    type: vif.type ?? 'unbound',
    networkId: vif.network?.id ?? '',
    bridge: vif.network?.bridge ?? null,
    mtu: typeof mtu === 'number' ? mtu : null,
    details: vif.details,
  };
}
