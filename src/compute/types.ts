// The pieces of the compute service that its operations are given.
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { RequestContext } from '#src/nova/context.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { Cinder, Glance, Neutron, Placement } from '#src/openstack/types.ts';
import type { VifDriver } from '#drivers/vif/driver.ts';
import type { VirtDriver } from '#drivers/virt/driver.ts';
import type { RpcClient } from '#src/messaging/types.ts';
import type { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { Log } from '#src/lib/log.ts';
import type { ComputeConfig } from './config/config.ts';
import type { UnderWay } from './rpc/under-way.ts';
import type { HostVolumes } from './volumes/host-volumes.ts';

/** A reservation of this host's resources for one instance; ends with commit (nothing to do) or abort. */
export interface Claim {
  /** Takes the usage back and sets host, node and compute_id of the instance to null, saved. */
  abort(signal?: AbortSignal): Promise<void>;
}

/** Section 4.7. Claims and changes count at once; the periodic reading of the database loses none of them. */
export interface ResourceTracker {
  readonly nodeName: string;
  /** Id of the ComputeNode row, for Instance.compute_id. */
  readonly computeNodeId: number;
  readonly computeNodeUuid: string;
  /** Sets host, launched_on, node, compute_id on the instance, saves it, counts it, writes the ComputeNode when changed. */
  instanceClaim(
    context: RequestContext,
    instance: NovaObject<'Instance'>,
    options?: {
      /** Its root takes no room here; absent: told by that it has no image. */
      readonly isOnVolume?: boolean;
    },
  ): Promise<Claim>;
  /** Processors of this host that the instance is to run on, once it is claimed; null: any so many. */
  cpusFor(uuid: string, vcpus: number): readonly number[] | null;
  /**
   * A move claim: fills in the destination of the migration (this host), gives the instance its migration context, saves
   * both, and counts the new flavor beside the instance's own.
   */
  resizeClaim(
    context: RequestContext,
    instance: NovaObject<'Instance'>,
    move: { readonly migration: NovaObject<'Migration'>; readonly flavor: NovaObject<'Flavor'> },
  ): Promise<void>;
  /** The room that is kept for the way back of a move, beside what the instance has; null when the move is over. */
  keepRoom(instance: NovaObject<'Instance'>, flavor: NovaObject<'Flavor'> | null): Promise<void>;
  /** Counts the instance anew after its state changed (deleted ones are dropped). */
  updateUsage(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  /** The instance, and the room kept for it, are not this host's any more. */
  release(instance: NovaObject<'Instance'>): Promise<void>;
  buildSucceeded(): void;
  buildFailed(): void;
  /** Adds or removes COMPUTE_STATUS_DISABLED on the root provider at once (set_host_enabled). */
  setDisabled(disabled: boolean, signal?: AbortSignal): Promise<void>;
}

/** The two records of a move. */
export interface MoveRecords {
  readonly instance: NovaObject<'Instance'>;
  readonly migration: NovaObject<'Migration'>;
}

export type MoveStep =
  | 'give up'
  | 'pass on'
  | 'finish'
  | 'confirm'
  | 'revert'
  | 'finish revert'
  | 'finish evacuation'
  | 'fail evacuation';

/**
 * What start-up and the periodic tasks ask of the operations; the same code that serves the RPC methods. Each takes the
 * instance's lock itself, saves what it changes, and rejects after having put the instance into a consistent state.
 * `createInstanceOperations(services)` and `computeEndpoints(services, operations)` of rpc/endpoints.ts make them.
 */
export interface InstanceOperations {
  /** stop_instance (section 5.4); task_state is powering-off already. */
  stop(context: RequestContext, instance: NovaObject<'Instance'>, cleanShutdown: boolean): Promise<void>;
  /** start_instance; task_state is powering-on already. */
  start(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  /** reboot_instance. */
  reboot(context: RequestContext, instance: NovaObject<'Instance'>, type: 'SOFT' | 'HARD'): Promise<void>;
  /** unpause_instance; the task is unpausing already, and so on. */
  unpause(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  pause(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  suspend(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  resume(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  softDelete(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  restore(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  /** terminate_instance (section 5.3). `blockDevices`: as the message has them; absent: read by itself. */
  terminate(
    context: RequestContext,
    instance: NovaObject<'Instance'>,
    blockDevices?: readonly NovaObject<'BlockDeviceMapping'>[],
  ): Promise<void>;
  /** unrescue_instance; task_state is unrescuing already. */
  unrescue(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  /** Takes a rescue that was interrupted back: the guest runs as before when it did, and the task is cleared. */
  undoRescue(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  /** Takes an unshelving that was interrupted, or never begun, back: nothing of the instance is here, and it is shelved without a task. */
  undoUnshelve(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  /** Takes a shelved instance without a task off this host (section 5.10). */
  offloadShelved(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  /** The rest of a deletion of which only the record is left (vm_state deleted, section 4.6). */
  completeDeletion(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void>;
  /** Plugs the interfaces of the info cache on this host. Rejects when that fails. */
  plugInterfaces(context: RequestContext, instance: NovaObject<'Instance'>, signal: AbortSignal): Promise<void>;
  /** Of swaps of volumes that a killed process left, `devices` as they are marked: gone on with, or undone. */
  resumeSwaps(
    context: RequestContext,
    instance: NovaObject<'Instance'>,
    devices: readonly NovaObject<'BlockDeviceMapping'>[],
    signal: AbortSignal,
  ): Promise<void>;
  /** Starts the guest again as it was before the host went down; no state of the instance but power_state changes. */
  resumeGuest(context: RequestContext, instance: NovaObject<'Instance'>, signal: AbortSignal): Promise<void>;
  /** Takes a guest that Nova knows no more (or elsewhere) off this host: interfaces, container, disks. Idempotent. */
  removeGuest(context: RequestContext, instance: NovaObject<'Instance'>, signal: AbortSignal): Promise<void>;
  /** Of a move from this host that was interrupted before the guest had left: all is as before it, but for the task. */
  abandonMove(context: RequestContext, instance: NovaObject<'Instance'>, signal: AbortSignal): Promise<void>;
  /** Does again, or undoes, what a process that was killed left half done of a move. */
  repeatMoveStep(context: RequestContext, step: MoveStep, move: MoveRecords): Promise<void>;
  /** Fails everything that waits for an external event; the last call before the process ends. */
  cancelWaits(): void;
  /** Whether a build of that instance has come here, and has not ended. */
  isBuilding(uuid: string): boolean;
  /** Waits for the builds that run detached from their RPC; to be called after the RPC server stopped consuming. */
  drain(signal: AbortSignal): Promise<void>;
}

/** The moments of an instance's life that notification consumers know (appendix B.2). */
export type InstanceMoment =
  | 'create'
  | 'delete'
  | 'shutdown'
  | 'power_off'
  | 'power_on'
  | 'reboot'
  | 'soft_delete'
  | 'restore'
  | 'pause'
  | 'unpause'
  | 'suspend'
  | 'resume'
  | 'snapshot'
  | 'rebuild'
  | 'rescue'
  | 'unrescue'
  | 'shelve'
  | 'shelve_offload'
  | 'unshelve'
  | 'resize_prep'
  | 'resize'
  | 'resize_finish'
  | 'resize_confirm'
  | 'resize_revert'
  | 'exists'
  | 'interface_attach'
  | 'interface_detach'
  | 'volume_attach'
  | 'volume_detach'
  | 'volume_swap';

/** Where notifications go (section 1.12, appendix B). Nothing here throws or waits. */
export interface InstanceNotifications {
  moment(
    context: RequestContext,
    instance: NovaObject<'Instance'>,
    moment: {
      readonly name: InstanceMoment;
      readonly phase: 'start' | 'end' | 'error' | 'once';
      readonly error?: unknown;
      /** Additional keys of the legacy payload (image_name, message). */
      readonly extra?: Readonly<Record<string, unknown>>;
      /** Of what exists until now, where its record says something else already. */
      readonly imageId?: string;
      /** Goes with every snapshot. */
      readonly snapshotImageId?: string;
      /** Goes with a rescue by an image that was asked for. */
      readonly rescueImageId?: string;
      /** Goes with every preparation of a resize. */
      readonly newFlavor?: NovaObject<'Flavor'>;
      /** Goes with everything about a volume; the old one of two. */
      readonly volumeId?: string;
      readonly newVolumeId?: string;
      /** Of `exists`: a period that is over; absent: the one that is under way. */
      readonly period?: { readonly begin: Date; readonly end: Date };
    },
  ): void;
  /** The X wrapper: an RPC method failed. */
  failure(
    context: RequestContext,
    failure: { readonly method: string; readonly instanceUuid?: string; readonly error: unknown },
  ): void;
}

/** What every operation of compute/ is made of; constructed once, in the composition root. */
export interface ComputeServices {
  readonly config: ComputeConfig;
  readonly log: Log;
  readonly conductor: Conductor;
  readonly rpc: RpcClient;
  readonly virt: VirtDriver;
  readonly placement: Placement;
  readonly neutron: Neutron;
  readonly glance: Glance;
  readonly cinder: Cinder;
  /** Cinder's volumes on this host. */
  readonly volumes: HostVolumes;
  /** What Cinder is told of this host. */
  readonly connector: (signal: AbortSignal) => Promise<Readonly<Record<string, unknown>>>;
  readonly tracker: ResourceTracker;
  /** Plug interfaces on this host; each serves its own vif_types. */
  readonly vifs: readonly VifDriver[];
  readonly notifications: InstanceNotifications;
  /** One lock per instance uuid for every operation on it. */
  readonly locks: KeyedLock;
  /** Requests about instances. */
  readonly underWay: UnderWay;
}
