// type=macvlan: nics become macvlan interfaces of a parent; nothing is made on the host before.
import { AppError } from '#src/lib/errors.ts';
import { boolean, interfaceName, mtu, vlan } from '../common/checks.ts';
import { validateKeys } from '../common/validate.ts';
import type { NetworkConfig, NetworkDriver, NetworkInfo, NetworkModule } from '../driver.ts';

const INFO: NetworkInfo = {
  type: 'macvlan',
  nictype: 'macvlan',
  nicOptions: ['mtu', 'vlan', 'gvrp'],
  isInterface: false,
  forwards: false,
};

const KEYS = { parent: interfaceName, mtu: mtu(1280, 16_384), vlan, gvrp: boolean };

class MacvlanNetwork implements NetworkDriver {
  readonly info = INFO;

  validate(name: string, config: NetworkConfig): void {
    const complaint = interfaceName(name);
    if (complaint !== undefined) throw new AppError('invalid', complaint);
    validateKeys(name, config, { keys: KEYS, required: ['parent'] });
  }

  async checkNew(): Promise<void> {}

  async complete(config: NetworkConfig): Promise<NetworkConfig> {
    return config;
  }

  async up(): Promise<void> {}

  async down(): Promise<void> {}
}

export const macvlan: NetworkModule = { type: 'macvlan', create: () => new MacvlanNetwork() };
