// The guest's way in: what another compute offers is fetched when Nova's records say that it is to come here.
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { MIGRATION_STATUSES, MIGRATION_TYPES, TASK_STATES } from '#src/nova/states.ts';
import { guestSpec } from '../images/spawn-spec.ts';
import { findInstance, findMigration, type Instance } from '../records.ts';
import { removeStray } from '../recovery/stray-guests.ts';
import type { ComputeServices } from '../types.ts';
import { BUSY, RECEIVED } from './peer.ts';

const ATTRIBUTES = ['flavor', 'metadata', 'system_metadata'] as const;
const TYPES: ReadonlySet<string> = new Set([MIGRATION_TYPES.migration, MIGRATION_TYPES.resize]);

export interface GuestOfPeer {
  readonly migrationId: number;
  /** For the virt driver alone; it has secrets. */
  readonly ticket: unknown;
}

export class GuestReceiver {
  readonly #services: ComputeServices;
  #arriving = 0;

  constructor(services: ComputeServices) {
    this.#services = services;
  }

  /** Nothing of what the sender says is believed but the ticket: where the guest belongs is read from Nova. */
  async receive(context: RequestContext, { migrationId, ticket }: GuestOfPeer, signal: AbortSignal): Promise<string> {
    const { config, locks } = this.#services;
    const instance = await this.#expected(context.elevated(), migrationId);
    const uuid = instance.get('uuid');
    if (this.#arriving >= config.lxd.maxConcurrentMigrations || locks.isBusy(uuid)) return BUSY;
    this.#arriving += 1;
    try {
      return await locks.run(uuid, () => this.#fetch(instance, ticket, signal), signal);
    } finally {
      this.#arriving -= 1;
    }
  }

  /** Only when Nova's records say that the move it came with is over. */
  async discard(context: RequestContext, uuid: string, signal: AbortSignal): Promise<void> {
    const { config, conductor, virt, locks, log } = this.#services;
    const asking = { conductor, context: context.elevated() };
    const parts = { asking, virt, locks, log, host: config.host };
    const guest = (await virt.listInstances(signal)).find((one) => one.uuid === uuid);
    if (guest) await removeStray(parts, guest, signal);
  }

  async #fetch(instance: Instance, ticket: unknown, signal: AbortSignal): Promise<string> {
    const { virt, log } = this.#services;
    const flavor = instance.find('new_flavor') ?? instance.get('flavor');
    const uuid = instance.get('uuid');
    const since = performance.now();
    await virt.moves.receive(guestSpec(instance, flavor, this.#services), ticket, signal);
    log.info('instance arrived from another host', { instance: uuid, ms: Math.round(performance.now() - since) });
    return RECEIVED;
  }

  async #expected(context: RequestContext, migrationId: number): Promise<Instance> {
    const { config, conductor } = this.#services;
    const asking = { conductor, context };
    const migration = await findMigration(asking, migrationId);
    const instance = await findInstance(asking, migration.get('instance_uuid') ?? '', ATTRIBUTES);
    if (instance && isOnItsWay(migration, instance, config.host)) return instance;
    const reason = `migration ${migrationId} brings no instance to ${config.host} now`;
    throw novaException('MigrationPreCheckError', { reason });
  }
}

function isOnItsWay(migration: NovaObject<'Migration'>, instance: Instance, host: string): boolean {
  const source = migration.get('source_compute');
  return (
    TYPES.has(migration.get('migration_type')) &&
    migration.get('status') === MIGRATION_STATUSES.migrating &&
    migration.get('dest_compute') === host &&
    source !== host &&
    instance.get('host') === source &&
    instance.get('task_state') === TASK_STATES.resizeMigrating
  );
}
