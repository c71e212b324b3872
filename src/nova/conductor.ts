// Remotable methods of objects, executed by nova-conductor (nova-compute-contract sections 3.3 to 3.5).
import { AppError } from '#src/lib/errors.ts';
import type { CallOptions, RpcClient, WireArgs } from '#src/messaging/types.ts';
import type { RequestContext } from './context.ts';
import { manifestOf } from './objects/manifest.ts';
import { type NovaObject, expectObject, isA } from './objects/object.ts';
import { fromWire, toWire } from './objects/wire.ts';
import { fieldsToSave, missingFlavors } from './sparse-save.ts';
import type { Conductor, SaveOptions } from './types.ts';

type Kwargs = Readonly<Record<string, unknown>>;
interface Call {
  readonly method: string;
  readonly args?: readonly unknown[];
  readonly kwargs?: Kwargs;
}

const TARGET = { topic: 'conductor', version: '3.0' } as const;

export function createConductor(rpc: RpcClient, options: CallOptions = {}): Conductor {
  return new RpcConductor(rpc, options);
}

/** Rejects when no conductor answers in time; the first call of a starting service (section 4.1). */
export async function pingConductor(rpc: RpcClient, context: RequestContext, options: CallOptions): Promise<void> {
  const target = { topic: 'conductor', namespace: 'baseapi', version: '1.0' };
  const args = { arg: '1.21 GigaWatts' };
  await rpc.call({ target, method: 'ping', args, context: context.toWire() }, options);
}

class RpcConductor implements Conductor {
  readonly #rpc: RpcClient;
  readonly #options: CallOptions;

  constructor(rpc: RpcClient, options: CallOptions) {
    this.#rpc = rpc;
    this.#options = options;
  }

  async classMethod(context: RequestContext, call: Parameters<Conductor['classMethod']>[1]): Promise<unknown> {
    const result = await this.#call(context, 'object_class_action_versions', {
      objname: call.object,
      objmethod: call.method,
      object_versions: manifestOf(call.object),
      ...argumentsOf(call),
    });
    return fromWire(result);
  }

  async objectMethod(context: RequestContext, object: NovaObject, call: Call): Promise<unknown> {
    return this.#action(context, object, call);
  }

  async save(context: RequestContext, object: NovaObject, options: SaveOptions = {}): Promise<void> {
    if (isA(object, 'Instance')) await this.#loadFlavors(context, object);
    const fields = fieldsToSave(object);
    if (fields === undefined) return;
    await this.#action(context, object, { method: 'save', kwargs: saveKwargs(options) }, fields);
  }

  /** A changed flavor is saved with the other two, or the conductor puts the old ones back (section 3.5). */
  async #loadFlavors(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void> {
    const missing = missingFlavors(instance);
    if (missing.length === 0) return;
    const stored = expectObject(
      await this.classMethod(context, {
        object: 'Instance',
        method: 'get_by_uuid',
        kwargs: { uuid: instance.get('uuid'), expected_attrs: ['flavor'] },
      }),
      'Instance',
    );
    for (const field of missing) {
      const value = stored.find(field);
      if (value !== undefined) instance.load(field, value);
    }
  }

  async #action(context: RequestContext, object: NovaObject, call: Call, fields?: readonly string[]): Promise<unknown> {
    const objinst = object.toPrimitive({ label: 'zed', ...(fields === undefined ? {} : { fields }) });
    const mark = object.markChanges();
    const args = { objinst, objmethod: call.method, ...argumentsOf(call) };
    const answer = await this.#call(context, 'object_action', args);
    const [updates, result] = Array.isArray(answer) ? answer : [];
    if (typeof updates !== 'object' || updates === null) {
      throw new AppError('internal', `${object.objectName}.${call.method}: the conductor's answer has no updates`);
    }
    object.settle(mark, updates as Kwargs);
    return fromWire(result);
  }

  #call(context: RequestContext, method: string, args: WireArgs): Promise<unknown> {
    return this.#rpc.call({ target: TARGET, method, args, context: context.toWire() }, this.#options);
  }
}

function argumentsOf({ args = [], kwargs = {} }: Omit<Call, 'method'>): { args: unknown; kwargs: unknown } {
  return { args: toWire(args, { label: 'zed' }), kwargs: toWire(kwargs, { label: 'zed' }) };
}

/** On the wire null is "no check", and "no task" is a list with a null in it. */
function saveKwargs({ expectedTaskState, expectedVmState, adminStateReset }: SaveOptions): Kwargs {
  return {
    ...(expectedTaskState === undefined ? {} : { expected_task_state: expectedTaskState ?? [null] }),
    ...(expectedVmState === undefined ? {} : { expected_vm_state: expectedVmState ?? [null] }),
    ...(adminStateReset === undefined ? {} : { admin_state_reset: adminStateReset }),
  };
}
