// RPC methods that a control plane may send and this service does not serve: each is refused in the way that its caller
// understands (sections 5.1, 5.5 to 5.15).
import { type NovaExceptionName, novaException } from '#src/nova/exceptions.ts';
import { NotImplementedError } from '../not-implemented.ts';
import { type RpcMethod, rpcMethod } from './method.ts';
import { type ArgsOf, object, optional, instanceObject } from './params.ts';
import { type Wrapper, X, XEF, XEFM, XF, XTEFM } from './wrappers.ts';

/** What a refusal may need of the arguments, whichever of them a method has. */
const args = {
  instance: optional(instanceObject()),
  migration: optional(object('Migration')),
};
type Args = ArgsOf<typeof args>;

type Refusal = (method: string, args: Args) => Error;

interface Unsupported {
  readonly wrappers: readonly Wrapper[];
  readonly refusal: Refusal;
}

const notImplemented: Refusal = (method) => new NotImplementedError(method);
const preCheckFailed: Refusal = () =>
  novaException('MigrationPreCheckError', { reason: 'this host cannot move running or cross-cell instances' });

function aboutInstance(name: NovaExceptionName, key: 'instance_uuid' | 'instance_id'): Refusal {
  return (_method, { instance }) => novaException(name, { [key]: instance?.get('uuid') ?? '' } as never);
}

const plain = (wrappers: readonly Wrapper[]): Unsupported => ({ wrappers, refusal: notImplemented });

const UNSUPPORTED: Readonly<Record<string, Unsupported>> = {
  trigger_crash_dump: plain(XEF),
  prep_snapshot_based_resize_at_dest: { wrappers: XEF, refusal: preCheckFailed },
  prep_snapshot_based_resize_at_source: plain(XTEFM),
  finish_snapshot_based_resize_at_dest: plain(XTEFM),
  confirm_snapshot_based_resize_at_source: plain(XEFM),
  revert_snapshot_based_resize_at_dest: plain(XTEFM),
  finish_revert_snapshot_based_resize_at_source: plain(XTEFM),
  check_can_live_migrate_destination: { wrappers: XEF, refusal: preCheckFailed },
  check_can_live_migrate_source: { wrappers: XEF, refusal: preCheckFailed },
  pre_live_migration: plain(XEF),
  live_migration: plain(XEFM),
  post_live_migration_at_destination: plain(XEF),
  rollback_live_migration_at_destination: plain(XEF),
  drop_move_claim_at_destination: plain(XF),
  live_migration_force_complete: plain(XEF),
  live_migration_abort: plain(XEF),
  volume_snapshot_create: plain(X),
  volume_snapshot_delete: plain(X),
  add_fixed_ip_to_instance: plain(XF),
  remove_fixed_ip_from_instance: plain(XF),
  host_power_action: plain(X),
  host_maintenance_mode: plain(X),
  quiesce_instance: { wrappers: X, refusal: aboutInstance('InstanceQuiesceNotSupported', 'instance_id') },
  unquiesce_instance: { wrappers: X, refusal: aboutInstance('InstanceQuiesceNotSupported', 'instance_id') },
  allow_share: plain(XEF),
  deny_share: plain(XEF),
};

export function unsupportedMethods(): readonly RpcMethod[] {
  return Object.entries(UNSUPPORTED).map(([name, { wrappers, refusal }]) =>
    rpcMethod({
      name,
      args,
      wrappers,
      async handle(_call, given) {
        throw refusal(name, given);
      },
    }),
  );
}
