// A host without managed networks.
import type { NetworkAccess } from '#src/engine/context.ts';

export const noNetworks: NetworkAccess = {
  expand: (_project, device) => device,
  check: () => undefined,
  checkStart: () => undefined,
  checkChange: () => undefined,
  chosenAddresses: () => ({}),
  publish: async () => undefined,
  withdraw: async () => undefined,
};
