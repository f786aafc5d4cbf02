// A reader for the two small JSON documents the emulator is given: aclInit's configuration, and a list of faults.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace emulator {

class Json {
 public:
  enum class Type { kNull, kBool, kNumber, kString, kArray, kObject };

  static Json parse(std::string_view text);       // throws Failure(500000) saying where the text is wrong
  static Json parse_file(const std::string& path);

  Type type() const { return type_; }
  bool is_object() const { return type_ == Type::kObject; }
  bool is_array() const { return type_ == Type::kArray; }
  bool is_number() const { return type_ == Type::kNumber; }
  bool is_string() const { return type_ == Type::kString; }
  double number() const { return number_; }
  const std::string& string() const { return string_; }
  const std::vector<Json>& items() const { return items_; }
  const std::map<std::string, Json>& members() const { return members_; }
  const Json* find(const std::string& key) const;  // null when absent or not an object

 private:
  friend class JsonReader;
  Type type_ = Type::kNull;
  double number_ = 0;  // booleans are 0 and 1
  std::string string_;
  std::vector<Json> items_;
  std::map<std::string, Json> members_;
};

std::string json_quote(std::string_view text);

}  // namespace emulator
