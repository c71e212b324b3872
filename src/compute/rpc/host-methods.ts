// RPC methods on the host itself, and the questions that a host without shared storage or consoles answers by no.
import { novaException } from '#src/nova/exceptions.ts';
import type { ComputeServices } from '../types.ts';
import { type RpcMethod, rpcMethod } from './method.ts';
import { dict, flag, listOf, object, optional, text } from './params.ts';
import { X, XF } from './wrappers.ts';

const instance = object('Instance');
const nothing = {};
const enabledArgs = { enabled: flag() };
const storageArgs = { data: optional(dict()) };
const imagesArgs = { image_ids: listOf(text()) };
const portArgs = { instance };
const consoleArgs = { console_type: optional(text()), instance };

export function hostMethods({ virt, tracker }: ComputeServices): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'get_host_uptime',
      args: nothing,
      wrappers: X,
      handle: async ({ signal }) => (await virt.hostFacts(signal)).uptime,
    }),
    rpcMethod({
      name: 'set_host_enabled',
      args: enabledArgs,
      wrappers: X,
      async handle({ signal }, { enabled }) {
        await tracker.setDisabled(!enabled, signal);
        return enabled ? 'enabled' : 'disabled';
      },
    }),
    rpcMethod({
      name: 'check_instance_shared_storage',
      args: storageArgs,
      wrappers: X,
      handle: async () => false,
    }),
    rpcMethod({
      name: 'cache_images',
      args: imagesArgs,
      wrappers: [],
      handle: async (_call, args) => Object.fromEntries(args.image_ids.map((id) => [id, 'unsupported'])),
    }),
    rpcMethod({
      name: 'validate_console_port',
      args: portArgs,
      wrappers: XF,
      handle: async () => false,
    }),
    ...CONSOLES.map(consoleMethod),
  ];
}

const CONSOLES = ['vnc', 'spice', 'serial', 'mks', 'rdp'] as const;

/** As a stock compute answers for a console that its configuration disables. */
function consoleMethod(console: (typeof CONSOLES)[number]): RpcMethod {
  return rpcMethod({
    name: `get_${console}_console`,
    args: consoleArgs,
    wrappers: XF,
    async handle(_call, { console_type: type }) {
      throw novaException('ConsoleTypeUnavailable', { console_type: type ?? console });
    },
  });
}
