// The next step of an operation, cast to the compute that is to do it.
import type { RpcClient, WireArgs } from '#src/messaging/types.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { toWire } from '#src/nova/objects/wire.ts';

export async function castStep(
  { rpc, host }: { readonly rpc: RpcClient; readonly host: string },
  context: RequestContext,
  method: 'resize_instance' | 'finish_resize' | 'confirm_resize' | 'finish_revert_resize' | 'unrescue_instance',
  args: WireArgs,
): Promise<void> {
  const target = { topic: 'compute', server: host, version: '6.0' };
  await rpc.cast({ target, method, args: toWire(args) as WireArgs, context: context.toWire() });
}
