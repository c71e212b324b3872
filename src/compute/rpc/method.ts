// An RPC method as an object: its arguments, what surrounds it, what it does; and the way into the messaging server.
import { RequestContext } from '#src/nova/context.ts';
import { NovaObject, isA } from '#src/nova/objects/object.ts';
import { toWire } from '#src/nova/objects/wire.ts';
import type { RpcHandler } from '#src/messaging/types.ts';
import type { ComputeServices } from '../types.ts';
import { type ArgsOf, type Params, compileArgs } from './params.ts';
import { type Invocation, type Wrapper, wrapped } from './wrappers.ts';

export interface Call {
  readonly context: RequestContext;
  readonly signal: AbortSignal;
}

export interface RpcMethod {
  readonly name: string;
  handler(services: ComputeServices): RpcHandler;
}

export interface MethodDefinition<P extends Params> {
  readonly name: string;
  readonly args: P;
  /** From outside in; `instance` and `migration` among the arguments are what they act on. */
  readonly wrappers: readonly Wrapper[];
  handle(call: Call, args: ArgsOf<P>): Promise<unknown>;
}

/** Ties the types of `args` and `handle` together; the schema is compiled here, once. What fails is logged by the server. */
export function rpcMethod<P extends Params>(definition: MethodDefinition<P>): RpcMethod {
  const { name, wrappers } = definition;
  const decode = compileArgs(name, definition.args);
  return {
    name,
    handler: (services) => async (wireContext, wireArgs, signal) => {
      const context = RequestContext.fromWire(wireContext);
      const args = decode(wireArgs);
      const invocation = { method: name, context, ...subjects(args) };
      const work = (): Promise<unknown> => definition.handle({ context, signal }, args);
      const all = async (): Promise<unknown> => toWire(await wrapped(services, invocation, wrappers, work));
      const uuid = invocation.instance?.get('uuid');
      return await (uuid === undefined ? all() : services.underWay.during(uuid, all));
    },
  };
}

function subjects(args: Readonly<Record<string, unknown>>): Pick<Invocation, 'instance' | 'migration'> {
  const { instance, migration } = args;
  return {
    ...(isA(instance, 'Instance') && { instance }),
    ...(migration instanceof NovaObject && isA(migration, 'Migration') && { migration }),
  };
}
