-- ARGV: base flow. Returns the hash of its joins.
return redis.call('HGETALL', key(ARGV[2], 'joins'))
