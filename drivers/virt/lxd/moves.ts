// Moves between hosts, as `lxc move` does it: the engine that has the guest waits for the one that fetches it.
import type { EngineClient } from '#src/client/client.ts';
import { isEnded, type PendingOperation } from '#src/client/operations.ts';
import type { Instance, Operation } from '#src/client/wire.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import { type GuestMoves, type GuestOffer, type GuestSpec, POWER_STATE } from '../driver.ts';
import { changeInstance } from './change-instance.ts';
import type { ConfigDrives } from './config-drives.ts';
import type { Directory } from './directory.ts';
import { ephemeralDisks } from './ephemeral-disks.ts';
import { giveDrive } from './equip.ts';
import { type EngineCalls, stateConflict } from './engine-calls.ts';
import { instanceBody } from './instance-body.ts';
import { within } from './limit.ts';
import { arrivingMark, isArriving, novaUuid, withoutArriving } from './marks.ts';
import { type DiskOffer, fetchDisks, offerDisk } from './moved-disks.ts';
import type { LxdDriverOptions } from './options.ts';
import { powerStateOf } from './power-state.ts';
import type { Reach } from './reach.ts';
import type { EngineSetup } from './setup.ts';
import {
  type OfferedDisk,
  packedDrive,
  readTicket,
  secretsOf,
  takenAlong,
  type Ticket,
  unpackedDrive,
} from './ticket.ts';

const UNDO_LIMIT_MS = 300_000;
const GIVE_UP_LIMIT_MS = 30_000;
const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12 };

export interface MovesContext {
  readonly client: EngineClient;
  readonly directory: Directory;
  readonly calls: EngineCalls;
  readonly log: Log;
  readonly options: LxdDriverOptions;
  readonly setup: () => EngineSetup;
  readonly reach: () => Reach;
  /** Undefined: the engine is not on this machine. */
  readonly drives: () => ConfigDrives | undefined;
}

export class LxdMoves implements GuestMoves {
  readonly #context: MovesContext;

  constructor(context: MovesContext) {
    this.#context = context;
  }

  assertOffers(): void {
    this.#reach();
  }

  async offer(uuid: string, signal: AbortSignal, onProgress?: (bytes: number) => void): Promise<GuestOffer> {
    const { client, directory, options } = this.#context;
    const { address, certificate } = this.#reach();
    return within(`offer of instance ${uuid}`, options.requestTimeoutMs, signal, async (limit) => {
      const guest = await directory.get(uuid, limit);
      const { name, status_code } = guest;
      if (powerStateOf(status_code) !== POWER_STATE.shutdown) throw stateConflict(uuid, 'runs');
      const body = { name, migration: true, live: false, instance_only: true };
      const report = (operation: Operation): void => onProgress?.(bytesOf(operation));
      const drive = packedDrive((await this.#context.drives()?.read(uuid)) ?? null);
      const pending = await client.instances.move(name, body, {
        signal: limit,
        ...(onProgress && { onProgress: report }),
      });
      const offer = new PendingOffer(this.#context, uuid, {
        version: 1,
        operation: `https://${address}/1.0/operations/${pending.id}`,
        certificate,
        secrets: secretsOf(pending.operation),
        architecture: guest.architecture,
        config: takenAlong(guest.config),
        drive,
      });
      offer.add(pending);
      return this.#withDisks(offer, guest, limit);
    });
  }

  async #withDisks(offer: PendingOffer, { devices }: Instance, signal: AbortSignal): Promise<GuestOffer> {
    const { address } = this.#reach();
    try {
      for (const disk of ephemeralDisks(devices, offer.uuid)) {
        offer.addDisk(await offerDisk(this.#context.client, address, disk, signal));
      }
      return offer;
    } catch (error) {
      await offer[Symbol.asyncDispose]();
      throw error;
    }
  }

  async receive(spec: GuestSpec, value: unknown, signal: AbortSignal): Promise<void> {
    const { directory, log, options } = this.#context;
    const ticket = readTicket(value);
    await within(`arrival of instance ${spec.uuid}`, options.migrationTimeoutMs, signal, async (limit) => {
      await this.#makeWay(spec, limit);
      await using revert = new Reverter(log);
      await this.#fetch(spec, ticket, revert, limit);
      revert.commit();
      directory.remember(spec.uuid, spec.name);
    });
  }

  async #fetch(spec: GuestSpec, ticket: Ticket, revert: Reverter, signal: AbortSignal): Promise<void> {
    const { client, calls, drives, log, options, setup } = this.#context;
    const { uuid, name } = spec;
    const { operation, certificate, secrets, architecture } = ticket;
    const source = { type: 'migration', mode: 'pull', operation, certificate, secrets, instance_only: true } as const;
    const { profiles, policy } = options;
    const { config, ...body } = instanceBody(spec, [], { ...setup(), source, profiles, policy });
    const request = { ...body, architecture, config: { ...ticket.config, ...config, ...arrivingMark } };
    const place = { ...setup(), client };
    const disks = await fetchDisks(place, { spec, ticket, revert }, signal);
    const pending = await client.instances.create(request, { signal });
    revert.add('arriving instance', async () => {
      // What nobody waits for goes on in the engine, and would come about after all.
      const undo = AbortSignal.timeout(UNDO_LIMIT_MS);
      await pending.wait(undo).catch(() => undefined);
      await calls.undoSpawn(name, uuid, undo);
    });
    await Promise.all([pending.wait(signal), disks.arrived(signal)]);
    const tree = unpackedDrive(ticket.drive);
    const drive = await giveDrive({ client, drives: drives(), log }, { spec, revert }, tree, signal);
    const devices = { ...disks.devices, ...drive };
    if (Object.keys(devices).length > 0) await client.instances.patch(name, { devices }, signal);
  }

  /** What an earlier try left. */
  async #makeWay({ uuid, name }: GuestSpec, signal: AbortSignal): Promise<void> {
    const { client, calls, directory } = this.#context;
    calls.forgive(uuid);
    const present = (await directory.find(uuid, signal)) ?? (await client.instances.find(name, signal));
    if (!present) return;
    if (novaUuid(present) !== uuid || !isArriving(present)) {
      throw new AppError('conflict', `the engine has an instance named ${present.name} already`);
    }
    await calls.remove(present.name, uuid, signal);
    directory.forget(uuid);
  }

  async adopt(uuid: string, signal: AbortSignal): Promise<void> {
    const { client, directory, options } = this.#context;
    await within(`adoption of instance ${uuid}`, options.spawnTimeoutMs, signal, async (limit) => {
      const { name } = await directory.get(uuid, limit);
      const adopt = ({ config, devices }: Parameters<Parameters<typeof changeInstance>[2]>[0]) => ({
        config: withoutArriving(config),
        devices,
      });
      await changeInstance(client, name, adopt, limit);
    });
  }

  async withdraw(uuid: string, signal: AbortSignal): Promise<void> {
    const { client, directory, options } = this.#context;
    await within(`withdrawal of instance ${uuid}`, options.spawnTimeoutMs, signal, async (limit) => {
      const instance = await directory.find(uuid, limit);
      if (!instance) return;
      const path = `/1.0/instances/${encodeURIComponent(instance.name)}`;
      const disks = new Set(ephemeralDisks(instance.devices, uuid).map((disk) => disk.name));
      for (const operation of await client.operations.list(limit)) {
        const { instances, storage_volumes: volumes } = operation.resources ?? {};
        const touches =
          (instances ?? []).some((url) => url.split('?')[0] === path) ||
          (volumes ?? []).some((url) => disks.has(url.split('?')[0]?.split('/').at(-1) ?? ''));
        if (touches && operation.class === 'websocket' && !isEnded(operation)) await this.#cancel(operation.id, limit);
      }
    });
  }

  async #cancel(id: string, signal: AbortSignal): Promise<void> {
    const { client } = this.#context;
    await client.operations.cancel(id, signal).catch(() => signal.throwIfAborted()); // it has ended
    await client.operations.wait(id, signal).catch(() => signal.throwIfAborted());
  }

  #reach(): Extract<Reach, { address: string }> {
    const reach = this.#context.reach();
    if ('address' in reach) return reach;
    throw new AppError('unsupported', `guests cannot leave this host: ${reach.reason}`);
  }
}

class PendingOffer implements GuestOffer {
  readonly uuid: string;
  readonly #context: MovesContext;
  readonly #ticket: Ticket;
  readonly #disks: OfferedDisk[] = [];
  readonly #pendings: PendingOperation[] = [];
  #isFetched = false;

  constructor(context: MovesContext, uuid: string, ticket: Ticket) {
    this.#context = context;
    this.uuid = uuid;
    this.#ticket = ticket;
  }

  get ticket(): Ticket {
    return { ...this.#ticket, ...(this.#disks.length > 0 && { ephemerals: this.#disks }) };
  }

  add(pending: PendingOperation): void {
    this.#pendings.push(pending);
  }

  addDisk({ pending, offered }: DiskOffer): void {
    this.add(pending);
    this.#disks.push(offered);
  }

  async fetched(signal: AbortSignal): Promise<void> {
    const { options } = this.#context;
    await within(`departure of instance ${this.uuid}`, options.migrationTimeoutMs, signal, async (limit) => {
      await Promise.all(this.#pendings.map((pending) => pending.wait(limit)));
    });
    this.#isFetched = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isFetched) return;
    await Promise.all(this.#pendings.map((pending) => this.#giveUp(pending)));
  }

  async #giveUp(pending: PendingOperation): Promise<void> {
    const { client, log } = this.#context;
    const signal = limited(GIVE_UP_LIMIT_MS);
    await client.operations.cancel(pending.id, signal).catch(() => undefined); // it has ended, or cannot be
    await pending.wait(signal).catch((error: unknown) => {
      if (signal.aborted)
        log.warn('an offer still runs in the engine', { instance: this.uuid, error: messageOf(error) });
    });
  }
}

/** From `NAME: 12.34MB (5.67MB/s)`. */
function bytesOf({ metadata }: Operation): number {
  const text = metadata?.['fs_progress'];
  const [, amount = '0', unit = ''] = (typeof text === 'string' && /: ([\d.]+)([kMGT]?)B/.exec(text)) || [];
  return Number(amount) * (UNITS[unit] ?? 1);
}
