// RPC methods on consoles (section 5.13): the serial one, and those that no container has.
import { novaException } from '#src/nova/exceptions.ts';
import type { ComputeOperations } from '../operations.ts';
import { type RpcMethod, rpcMethod } from './method.ts';
import { optional, text, instanceObject } from './params.ts';
import { XF } from './wrappers.ts';

const instance = instanceObject();
const consoleArgs = { console_type: optional(text()), instance };
const portArgs = { instance, port: text(), console_type: optional(text()) };

export function consoleMethods({ consoles }: Pick<ComputeOperations, 'consoles'>): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'get_serial_console',
      args: consoleArgs,
      wrappers: XF,
      handle: ({ context, signal }, args) => consoles.access(context, args.instance, args.console_type, signal),
    }),
    rpcMethod({
      name: 'validate_console_port',
      args: portArgs,
      wrappers: XF,
      handle: (_call, args) => consoles.validate(args.instance.get('uuid'), args.port),
    }),
    ...SCREENS.map(screenMethod),
  ];
}

const SCREENS = ['vnc', 'spice', 'mks', 'rdp'] as const;

/** Containers have none: as a stock compute answers for a console that its configuration disables. */
function screenMethod(screen: (typeof SCREENS)[number]): RpcMethod {
  return rpcMethod({
    name: `get_${screen}_console`,
    args: consoleArgs,
    wrappers: XF,
    async handle(_call, { console_type: type }) {
      throw novaException('ConsoleTypeUnavailable', { console_type: type ?? screen });
    },
  });
}
