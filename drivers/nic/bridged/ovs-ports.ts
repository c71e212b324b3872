// A nic on a bridge of Open vSwitch: what its port is told, and what it cannot have there.
import { AppError } from '#src/lib/errors.ts';
import type { NicDevice } from '../driver.ts';
import { FILTER_OPTIONS } from '../common/filters.ts';
import { isOn } from '../common/nic-options.ts';
import { taggedIds } from './vlans.ts';

const ONLY_NATIVE = [...FILTER_OPTIONS, 'security.port_isolation'];

/** AppError 'unsupported' for what the kernel's bridges do and frames in Open vSwitch never meet. */
export function requireOvsOptions({ config }: NicDevice): void {
  const parent = config['parent'] ?? '';
  const option = ONLY_NATIVE.find((one) => isOn(config[one]));
  if (option !== undefined) {
    throw new AppError('unsupported', `Cannot use "${option}" on "${parent}": it is a bridge of Open vSwitch`);
  }
  if (config['vlan'] === 'none' && taggedIds(config).length === 0) {
    throw new AppError('invalid', 'vlan=none is not supported with openvswitch bridges when not using vlan.tagged');
  }
}

/** Settings of its port. */
export function ovsVlans({ config }: NicDevice): readonly string[] {
  const { vlan = '' } = config;
  const tagged = taggedIds(config);
  const isUntagged = vlan !== '' && vlan !== 'none';
  const tag = isUntagged ? [`tag=${vlan}`] : [];
  if (tagged.length === 0) return isUntagged ? ['vlan_mode=access', ...tag] : [];
  return [`vlan_mode=${vlan === 'none' ? 'trunk' : 'native-untagged'}`, ...tag, `trunks=${tagged.join(',')}`];
}
